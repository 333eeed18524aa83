"""Fields: what is read of a request's object, and what the messages about it say."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import printable
from gptoss_onnx.serving.errors import ApiError, refused
from gptoss_onnx.serving.fields import Fields, shown

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=99),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(value=VALUES, least=st.integers(-9, 0), most=st.integers(0, 9))
def test_numbers(value: Any, least: int, most: int) -> None:
    """Exactly JSON's numbers within the limits pass: no booleans, no texts."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = is_number and least <= value <= most
    fields = Fields({"x": value})
    for read, good in (
        (fields.number, fits),
        (fields.integer, fits and int(value) == value),
    ):
        if value is None:
            assert read("x", least, most, most) == most
        elif good:
            assert read("x", least, most, most) == value
        else:
            with pytest.raises(ApiError, match=r"^x: found .*, expected .*"):
                read("x", least, most, most)


@given(value=VALUES)
def test_every_message_is_one_short_line(value: Any) -> None:
    text = shown(value)
    assert len(text) <= 60
    error = Fields({"x": value}, "a.b").wrong("x", "something else")
    assert error.param == "a.b.x"
    assert "\n" not in error.message and error.message == printable(error.message)
    json.dumps(error.body()).encode()


def test_places_are_named() -> None:
    fields = Fields({"list": [{"inner": {"number": 7}}, 5]})
    with pytest.raises(ApiError, match=r"^list\[1\]: found 5, expected an object$"):
        fields.objects("list", 5)
    fields = Fields({"list": [{"inner": {"number": 7}}]})
    inner = fields.objects("list", 5)[0].needed_object("inner")
    with pytest.raises(ApiError) as caught:
        inner.integer("number", 0, 5, 0)
    assert caught.value.param == "list[0].inner.number"


def test_nothing_is_not_the_default_of_what_must_be_there() -> None:
    with pytest.raises(ApiError, match="found nothing, expected a text"):
        Fields({"x": None}).text("x")
    with pytest.raises(ApiError, match="found nothing, expected"):
        Fields({}).one_of("x", ("a", "b"))


def test_errors_of_other_rooms_name_their_field() -> None:
    error = refused(InputError("tools[0].function.name: found 5, expected a name"))
    assert (error.status, error.param) == (400, "tools[0].function.name")
    assert refused(InputError("The prompt is wrong")).param is None
