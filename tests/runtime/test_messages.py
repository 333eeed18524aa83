"""Messages as SDKs send them become what transformers makes of them, and nothing but plain data
reaches a template.
"""

import dataclasses
import enum
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import Tokenizer
from gptoss_onnx.runtime.chat import ChatTemplate
from gptoss_onnx.runtime.messages import DEPTH_LIMIT, plain_data, plain_messages
from support.harmony_tokenizer import TEMPLATE, write_harmony_tokenizer

USER = {"role": "user", "content": "Tide?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "tide", "arguments": {"p": 1}}}
RESULT = {"role": "tool", "name": "tide", "content": "3", "tool_call_id": "c1"}
CALLS, ANSWER = [CALL], {"role": "assistant"}
CHATS: dict[str, list[dict[str, Any]]] = {
    "content null beside a call": [USER, {**ANSWER, "content": None, "tool_calls": CALLS}, RESULT],
    "no content beside a call": [USER, {**ANSWER, "tool_calls": CALLS}, RESULT],
    "tool_calls null": [USER, {**ANSWER, "content": "3 m", "tool_calls": None}, USER],
    "thinking null": [USER, {**ANSWER, "content": "3 m", "thinking": None}, USER],
    "thinking null beside a call": [
        USER,
        {**ANSWER, "thinking": None, "tool_calls": CALLS},
        RESULT,
    ],
    "what an SDK dumps": [
        USER,
        {**ANSWER, "content": "3 m"}
        | dict.fromkeys(("refusal", "annotations", "audio", "tool_calls")),
        USER,
    ],
    "reasoning_content": [USER, {**ANSWER, "reasoning_content": "hm", "tool_calls": CALLS}, RESULT],
    "reasoning": [USER, {**ANSWER, "reasoning": "hm", "tool_calls": CALLS}, RESULT],
    "thinking": [USER, {**ANSWER, "thinking": "hm", "tool_calls": CALLS}, RESULT],
    "all three": [
        USER,
        {
            **ANSWER,
            "thinking": "a",
            "reasoning": "b",
            "reasoning_content": "c",
            "tool_calls": CALLS,
        },
        RESULT,
    ],
    "a result that is an object": [
        USER,
        {**ANSWER, "tool_calls": CALLS},
        {**RESULT, "content": {"h": 3}},
    ],
    "developer": [{"role": "developer", "content": "Be brief."}, USER],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_harmony_tokenizer(tmp_path_factory.mktemp("harmony"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.open(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
        tokenizer_file=str(folder / "tokenizer.json"), chat_template=TEMPLATE
    )


@pytest.mark.parametrize("name", CHATS)
def test_messages_read_as_transformers_reads_them(
    tokenizer: Tokenizer, theirs: PreTrainedTokenizerFast, name: str
) -> None:
    before = json.dumps(CHATS[name])
    expected = theirs.apply_chat_template(
        CHATS[name], add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.encode_chat(CHATS[name]) == expected
    assert json.dumps(CHATS[name]) == before, "the caller's messages were changed"


def test_content_in_parts_is_one_text(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "One"}, {"type": "input_text", "text": "two"}, "three"]
    expected = tokenizer.encode_chat([{"role": "user", "content": "One\ntwo\nthree"}])
    assert tokenizer.encode_chat([{"role": "user", "content": parts}]) == expected
    for part, found in (
        ({"type": "image_url", "image_url": {"url": "x"}}, "a part of type 'image_url'"),
        ({"type": "text"}, "a part of type 'text'"),
        (3, "a part of type 'text'"),
    ):
        with pytest.raises(
            InputError, match=rf"messages\[0\].content\[1\]: found {found}, expected a text part"
        ):
            tokenizer.encode_chat([{"role": "user", "content": ["a", part]}])
    with pytest.raises(InputError, match=r"content: found dict, expected a text"):
        tokenizer.encode_chat([{"role": "user", "content": {"a": 1}}])


def test_arguments_as_text_are_not_encoded_twice(tokenizer: Tokenizer) -> None:
    def chat(arguments: Any) -> list[dict[str, Any]]:
        call = {"function": {"name": "tide", "arguments": arguments}}
        return [USER, {"role": "assistant", "tool_calls": [call]}, RESULT]

    assert tokenizer.encode_chat(chat('{"p": 1}')) == tokenizer.encode_chat(chat({"p": 1}))
    said = tokenizer.chat_template.render(chat('{"p": "é"}'))
    assert '<|message|>{"p": "é"}<|call|>' in said
    # What a model got wrong stays as it is, and the conversation goes on.
    for wrong in ('{"p": ', "[1]", "NaN", '{"p": NaN}', "[" * 9999, '{"p": %s}' % ("9" * 9999)):
        assert json.dumps(wrong) in tokenizer.chat_template.render(chat(wrong))


def test_no_calls_are_as_no_key(tokenizer: Tokenizer) -> None:
    with_none = [USER, {"role": "assistant", "content": "3 m", "tool_calls": []}, USER]
    assert tokenizer.encode_chat(with_none) == tokenizer.encode_chat(CHATS["tool_calls null"])
    assert "tool_calls" not in plain_messages(with_none)[1]


def test_objects_of_callers_stay_outside(tmp_path: Path) -> None:
    """A template could call their methods, and some write files."""
    victim = tmp_path / "victim"
    victim.write_text("x")
    template = "{{ messages[0].content.tofile('%s') }}{{ messages[0].content.unlink() }}" % (
        tmp_path / "written"
    )
    for thing in (np.arange(3), victim, object(), b"bytes", {1, 2}, print, int):
        with pytest.raises(
            InputError, match=r"messages\[0\].content: found \w+, expected text, a number"
        ):
            ChatTemplate(template, {}, tmp_path).render([{"role": "user", "content": thing}])
        with pytest.raises(InputError, match=r"variables.x: found \w+, expected text, a number"):
            ChatTemplate(template, {}, tmp_path).render([USER], variables={"x": thing})
    assert victim.exists()
    assert not (tmp_path / "written").exists()


def test_values_that_stand_for_plain_ones_are_taken() -> None:
    class Color(enum.StrEnum):
        RED = "red"

    @dataclasses.dataclass
    class Part:
        text: str
        type: str = "text"

    class Model:
        def model_dump(self) -> dict[str, Any]:
            return {"role": "user", "content": [Part("hi")]}

    (message,) = plain_messages([Model()])  # type: ignore[list-item]  # as an SDK's object
    assert message == {"role": "user", "content": "hi"}
    plain = plain_data([Color.RED, np.float32(0.5), np.int64(3), np.bool_(False), (1, None)], "x")
    assert plain == ["red", 0.5, 3, False, [1, None]]
    assert [type(value) for value in plain] == [str, float, int, bool, list]  # type: ignore[union-attr]  # just compared


def test_wrong_messages_are_named() -> None:
    deep: Any = "x"
    for _ in range(DEPTH_LIMIT + 2):
        deep = [deep]
    loop: list[Any] = []
    loop.append(loop)
    for messages, expected in (
        ("hello", "messages: found str, expected a sequence of messages"),
        (USER, "messages: found dict, expected a sequence"),
        (None, "messages: found NoneType"),
        ([], "messages: found none"),
        ([3], r"messages\[0\]: found 3, expected a mapping with role and content"),
        ([{"role": 3}], r"messages\[0\].role: found 3"),
        ([{"role": ""}], r"messages\[0\].role: found ''"),
        ([{"role": "user", 3: "x"}], r"messages\[0\]: found the key 3, expected text"),
        ([{"role": "user", "content": deep}], "nested more than 64 deep"),
        ([{"role": "user", "content": loop}], "nested more than 64 deep"),
        (
            [{"role": "user", "content": float("nan")}],
            r"messages\[0\].content: found nan, expected a finite number",
        ),
        ([{"role": "user", "content": 10**50}], "an integer of more than 40 digits"),
        ([{"role": "user", "content": ["x" * 10**6] * 80}], "found more than 64000000 characters"),
        ([{"role": "user", "tool_calls": "x"}], r"tool_calls: found str, expected a list"),
        (
            [{"role": "user", "thinking": 3, "content": "x"}],
            "reasoning: found int, expected a text",
        ),
    ):
        with pytest.raises(InputError, match=expected) as caught:
            plain_messages(messages)  # type: ignore[arg-type]  # wrong on purpose
        assert "\n" not in str(caught.value)


NUMBERS = st.booleans() | st.integers() | st.floats()
VALUES = st.recursive(
    st.none() | NUMBERS | st.text(max_size=5) | st.binary(max_size=2) | st.builds(object),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=9) | st.integers(), inner, max_size=3),
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["role", "content", "tool_calls", "thinking", "reasoning", "name"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4) | VALUES, max_size=3) | VALUES)
def test_anything_is_plain_or_refused(tokenizer: Tokenizer, messages: Any) -> None:
    found: str | list[int]
    try:
        found = tokenizer.encode_chat(messages)
    except InputError as error:
        found = str(error)
    assert found
    assert "\n" not in found
    assert len(found) < 1000
