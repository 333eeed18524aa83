"""Whatever JSON a client sends is either a request or refused in one line."""

import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.serving.fields import Fields
from gptoss_onnx.serving.responses.input_items import read_input
from gptoss_onnx.serving.responses.messages import chat_messages
from gptoss_onnx.serving.responses.request import begun, read_request
from support.openai_types import check_listed_item, check_response


def words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split())


NAMES = words(
    "background include input instructions max_output_tokens metadata parallel_tool_calls "
    "previous_response_id prompt reasoning store stream temperature text tool_choice tools "
    "top_logprobs top_p truncation user"
)
KEYS = words(
    "arguments call_id content description effort format id mode name output parameters refusal "
    "role schema status strict summary text tools type verbosity"
)
WORDS = words(
    "allowed_tools assistant auto c1 developer disabled function function_call "
    "function_call_output input_text item_reference json_object json_schema low message none "
    "output_text reasoning reasoning_text refusal required text user x"
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 30), st.just(0.5), WORDS, st.just("x" * 600)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
PARTS = st.fixed_dictionaries({"type": WORDS, "text": SCALARS})
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"type": WORDS | st.none()},
        optional={
            "role": WORDS,
            "content": WORDS | st.lists(PARTS, max_size=2),
            "call_id": st.sampled_from(["c1", "c2"]),
            "name": WORDS,
            "arguments": WORDS,
            "output": WORDS,
            "status": st.sampled_from(["completed", "incomplete"]),
        },
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150)
@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_any_fields(fields: dict[str, Any]) -> None:
    try:
        request = read_request(Fields({"input": "x", **fields}))
    except GptOssError as refusal:
        check_refusal(str(refusal))
    else:
        check_response(begun(request, "resp_1", "m", 1))


@settings(max_examples=150)
@given(ITEMS | VALUES)
def test_any_items(items: Any) -> None:
    try:
        kept = read_input(Fields({"input": items}))
        for item in kept:
            check_listed_item(item)
        messages = chat_messages(kept)
    except GptOssError as refusal:
        check_refusal(str(refusal))
    else:
        pairs = itertools.pairwise(message["role"] for message in messages)
        assert all(pair != ("assistant", "assistant") for pair in pairs)
        assert all(isinstance(message["content"], str) for message in messages)


def check_refusal(message: str) -> None:
    assert 0 < len(message) < 600 and len(message.splitlines()) == 1
