"""Items as chat messages: one answer of the model is one message, whatever items it came in."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.serving.fields import Fields
from gptoss_onnx.serving.responses.input_items import distinct, read_input
from gptoss_onnx.serving.responses.messages import chat_messages, cut_to_fit
from support.openai_types import check_listed_item

USER = {"role": "user", "content": "Weather?"}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"A"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "12 °C"}
SAID = {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}


def thoughts(text: str) -> dict[str, Any]:
    return {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    }


def messages(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return chat_messages(read_input(Fields({"input": list(items)})))


def tool_call(name: str, call_id: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def test_a_text_is_a_message_of_the_user() -> None:
    items = read_input(Fields({"input": "Hello"}))
    assert chat_messages(items) == [{"role": "user", "content": "Hello"}]


def test_thoughts_words_and_calls_of_one_answer_are_one_message() -> None:
    second = {**CALL, "call_id": "c2", "arguments": "no object"}
    found = messages(
        USER, thoughts("Look"), SAID, CALL, second, OUTPUT, {**OUTPUT, "call_id": "c2"}
    )
    assert found == [
        USER,
        {
            "role": "assistant",
            "reasoning_content": "Look",
            "content": "I look.",
            "tool_calls": [
                tool_call("weather", "c1", '{"city":"A"}'),
                tool_call("weather", "c2", "no object"),
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
        {"role": "tool", "tool_call_id": "c2", "content": "12 °C"},
    ]


def test_all_that_the_model_says_in_a_row_is_one_message() -> None:
    found = messages(USER, SAID, thoughts("So"), thoughts("on"), SAID, CALL, OUTPUT)
    assert [message["role"] for message in found] == ["user", "assistant", "tool"]
    assert found[1]["reasoning_content"] == "So\non"
    assert found[1]["content"] == "I look.\nI look."


def test_a_call_after_an_output_is_another_message() -> None:
    second = {**CALL, "call_id": "c2"}
    found = messages(
        USER, thoughts("1"), CALL, OUTPUT, thoughts("2"), second, {**OUTPUT, "call_id": "c2"}
    )
    assert [message["role"] for message in found] == ["user", *["assistant", "tool"] * 2]
    assert [found[1]["reasoning_content"], found[3]["reasoning_content"]] == ["1", "2"]


def test_roles_and_parts_are_kept() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    found = messages(
        {"type": "message", "role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
    )
    assert found == [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "No."},
    ]


def test_thoughts_without_an_answer_and_cut_off_calls_are_left_out() -> None:
    cut_off = {**CALL, "call_id": "c9", "status": "incomplete", "arguments": '{"ci'}
    assert messages(USER, thoughts("Hm"), cut_off, USER, thoughts("Hm")) == [USER, USER]
    # an answer to it makes it a call like others
    assert len(messages(USER, cut_off, {**OUTPUT, "call_id": "c9"})) == 3


def test_calls_and_outputs_belong_together() -> None:
    with pytest.raises(GptOssError, match=r"No tool call found .* call_id c1"):
        messages(USER, OUTPUT, CALL)
    with pytest.raises(GptOssError, match="No tool output found for function call c1"):
        messages(USER, CALL)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"type": "item_reference", "id": "x"}], r'input\[0\].type: found "item_reference"'),
        ([{"type": "web_search_call", "id": "x"}], r'input\[0\].type: found "web_search_call"'),
        ([{"type": 3}], r"input\[0\].type: found 3"),
        (["hi"], r'input\[0\]: found "hi", expected an object'),
        ([{"role": "tool", "content": "x"}], r'input\[0\].role: found "tool"'),
        ([{"role": "user"}], r"input\[0\].content: found nothing"),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}],
            r'input\[0\].content\[0\].type: found "input_image"',
        ),
        ([{"type": "reasoning", "encrypted_content": "x"}], "encrypted_content"),
        ([{**CALL, "arguments": {}}], r"input\[0\].arguments: found an object"),
        ([{**CALL, "call_id": "x" * 300}], r"input\[0\].call_id: found"),
        ([{**OUTPUT, "output": None}], r"input\[0\].output: found nothing"),
        (7, "input: found 7, expected a text or a list of items"),
    ],
)
def test_other_items_are_refused_in_one_line(items: Any, message: str) -> None:
    with pytest.raises(GptOssError, match=message) as refusal:
        read_input(Fields({"input": items}))
    assert len(str(refusal.value).splitlines()) == 1 and len(str(refusal.value)) < 250


def test_items_are_listed_in_the_forms_of_the_client() -> None:
    items = [USER, thoughts("Look"), SAID, CALL, OUTPUT]
    kept = read_input(Fields({"input": items}))
    for item in kept:
        check_listed_item(item)
    assert len({item["id"] for item in kept}) == 5
    assert read_input(Fields({"input": kept})) == kept  # and are accepted as they are listed


def test_items_that_are_sent_twice_have_two_names() -> None:
    named = {**USER, "id": "msg_1"}
    kept = read_input(Fields({"input": [named, named, {**OUTPUT, "id": "x"}]}))
    again = distinct(kept, kept[2:])
    names = [item["id"] for item in again]
    assert names[0] == "msg_1" and names[1].startswith("msg_") and names[2].startswith("fco_")
    assert len(set(names)) == 3
    without = [{**item, "id": ""} for item in again]
    assert without == [{**item, "id": ""} for item in kept]


TURN = st.sampled_from(["u", "ua", "uco", "uucoa", "uc", "oa"])


@given(st.lists(TURN, max_size=8).map("".join), st.integers(0, 20))
def test_the_oldest_turns_are_cut_and_no_more_than_needed(turns: str, room: int) -> None:
    forms: dict[str, dict[str, Any]] = {
        "s": {"role": "system", "content": "s"},
        "u": {"role": "user", "content": "u"},
        "a": {"role": "assistant", "content": "a"},
        "c": {"role": "assistant", "tool_calls": [tool_call("f", "c", "{}")]},
        "o": {"role": "tool", "tool_call_id": "c", "content": "o"},
    }
    given_messages = [forms[letter] for letter in f"s{turns}"]
    found = cut_to_fit(given_messages, lambda some: len(some) <= room)
    # All ways to cut, the longest rest first: before a user's message, where no call waits.
    letters = f"s{turns}"
    rests = [
        given_messages[place:]
        for place, letter in enumerate(letters)
        if letter == "u" and not letters[:place].replace("a", "").replace("u", "").endswith("c")
    ]
    fitting = [rest for rest in rests if 1 + len(rest) <= room]
    assert found == ([forms["s"], *fitting[0]] if fitting else None)


def test_a_cut_asks_about_few_turns_more_than_fit() -> None:
    asked: list[int] = []

    def fits(some: Sequence[Mapping[str, Any]]) -> bool:
        asked.append(len(some))
        return len(some) <= 11

    found = cut_to_fit([{"role": "user", "content": "u"}] * 4_000, fits)
    assert found is not None and len(found) == 11
    assert max(asked) <= 22 and len(asked) < 10


def test_a_cut_keeps_calls_with_their_outputs() -> None:
    call = {"role": "assistant", "tool_calls": [tool_call("f", "c", "{}")]}
    output = {"role": "tool", "tool_call_id": "c", "content": "o"}
    user = {"role": "user", "content": "u"}
    given_messages = [user, call, user, output, user]
    assert cut_to_fit(given_messages, lambda some: len(some) <= 4) == [user]
    assert cut_to_fit([user, call, output], lambda some: len(some) <= 2) is None
