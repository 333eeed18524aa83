"""Requests of one conversation have one key, and others have others."""

import json
from typing import Any

import pytest

from gptoss_onnx.serving.replicas.keys import CHAT, RESPONSES, TEXT, RoutingKeys

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "Hello"}
LATER = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And?"}]
PARTS = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}


def key(path: str, **fields: Any) -> str:
    return RoutingKeys().of(path, json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("path", "turns"),
    [
        (CHAT, [{"messages": [SYSTEM, FIRST]}, {"messages": [SYSTEM, FIRST, *LATER], "n": 2}]),
        (CHAT, [{"messages": [FIRST]}, {"messages": [PARTS, *LATER]}]),
        (RESPONSES, [{"input": "Hello"}, {"input": [FIRST, *LATER]}, {"input": [PARTS]}]),
        (TEXT, [{"prompt": "a" * 300}, {"prompt": "a" * 300 + "b"}]),
        (TEXT, [{"prompt": [7] * 300}, {"prompt": [7] * 300 + [8]}]),
        (CHAT, [{"messages": [FIRST], "prompt_cache_key": "k"}, {"prompt_cache_key": "k"}]),
    ],
)
def test_turns_of_a_conversation_share_a_key(path: str, turns: list[dict[str, Any]]) -> None:
    first, *others = (key(path, **turn) for turn in turns)
    assert first
    assert others == [first] * len(others)


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        (CHAT, {"messages": [SYSTEM, FIRST]}, {"messages": [FIRST]}),
        (CHAT, {"messages": [FIRST]}, {"messages": [{"role": "user", "content": "Bye"}]}),
        (RESPONSES, {"input": "Hello"}, {"input": "Hello", "instructions": "Shout."}),
        (TEXT, {"prompt": "a"}, {"prompt": "b"}),
    ],
)
def test_other_conversations_have_other_keys(
    path: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert key(path, **one) != key(path, **other)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b'{"messages": 7}', b'{"messages": [7]}', b"[" * 9000]
)
def test_what_is_no_conversation_has_no_key(body: bytes) -> None:
    for path in (CHAT, "/v1/models", "/"):
        assert RoutingKeys().of(path, body) == ""


def test_a_response_leads_to_the_key_that_it_was_made_with() -> None:
    keys = RoutingKeys()
    made = keys.of(RESPONSES, b'{"input": "Hello"}')
    keys.learn(made, b'event: response.created\ndata: {"response":{"id":"resp_1a"}}\n\n')
    keys.learn("other", b'{"id": "resp_2b"}')
    keys.learn("nothing", b'{"id": "chatcmpl-3"}')
    following = b'{"input": "And?", "previous_response_id": "%s"}'
    assert keys.of(RESPONSES, following % b"resp_1a") == made
    assert keys.of(RESPONSES, following % b"resp_2b") == "other"
    assert keys.of(RESPONSES, following % b"resp_4") == ""
    chosen = b'{"prompt_cache_key": "k", "previous_response_id": "resp_1a"}'
    assert keys.of(RESPONSES, chosen) == made  # whatever else it names
    assert keys.of(f"{RESPONSES}/resp_1a/input_items", b"") == made


def test_a_body_of_empty_lists_is_not_read_to_the_end() -> None:
    """It would keep the process that all requests go through for seconds."""
    few, many = (b",".join([b"[]"] * count) for count in (10, 200_000))
    messages = b'{"messages":[{"role":"user","content":"a"}],"x":[%s]}'
    assert RoutingKeys().of(CHAT, messages % few)
    assert RoutingKeys().of(CHAT, messages % many) == ""
