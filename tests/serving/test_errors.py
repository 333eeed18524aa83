"""Wrong requests: 400 in OpenAI's error body, one line that names the field, never a 500."""

from typing import Any

import httpx
import openai
import pytest

from support.served import Served

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASKED = [{"role": "user", "content": "Hello"}]


def wrong(server: Served, path: str, body: Any, status: int = 400) -> dict[str, Any]:
    """Send a body and return the error that it gets, after a look at its shape."""
    answer = httpx.post(f"{server.url}{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert isinstance(error, dict) and error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"] and len(error["message"]) < 500
    return error


CHAT_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [7]}, "messages[0]"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type",
    ),
    ({"temperature": 2.5}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"n": 1.5}, "n"),
    ({"seed": "x"}, "seed"),
    ({"seed": 1 << 63}, "seed"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"stop": [""]}, "stop[0]"),
    ({"stop": 7}, "stop"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logprobs": 3}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": []}, "stream_options"),
    ({"reasoning_effort": "extreme"}, "reasoning_effort"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"presence_penalty": -3}, "presence_penalty"),
    ({"functions": [{}]}, "functions"),
    ({"modalities": ["audio"]}, "modalities[0]"),
    ({"model": 5}, "model"),
]


@pytest.mark.parametrize(("fields", "param"), CHAT_FIELDS, ids=str)
def test_chat_fields(server: Served, fields: dict[str, Any], param: str) -> None:
    error = wrong(server, CHAT, {"messages": ASKED, **fields})
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: found ")
    assert "expected" in error["message"]


TEXT_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": {}}, "prompt"),
    ({"prompt": [1, "x"]}, "prompt[0]"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": [[1], [99999]]}, "prompt[1][0]"),
    ({"prompt": ["x"] * 65}, "prompt"),
    ({"suffix": "the end"}, "suffix"),
    ({"echo": True, "logprobs": 1}, "logprobs"),
    ({"best_of": 3}, "best_of"),
    ({"prompt": ["a", "b"], "n": 40}, "n"),
]


@pytest.mark.parametrize(("fields", "param"), TEXT_FIELDS, ids=str)
def test_text_fields(server: Served, fields: dict[str, Any], param: str) -> None:
    error = wrong(server, TEXT, {"prompt": "Hello", **fields})
    assert error["param"] == param
    assert "expected" in error["message"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff", b'"\\ud800"'],
)
def test_what_is_no_object(server: Served, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}{CHAT}", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("body: ")


def test_what_is_nested_too_deep(server: Served) -> None:
    content = b'{"messages": ' + b"[" * 100_000
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}{CHAT}", content=content, headers=headers)
    assert answer.status_code == 400
    assert "nested" in answer.json()["error"]["message"]


def test_a_prompt_that_does_not_fit(server: Served) -> None:
    long = [{"role": "user", "content": "word " * 400}]
    assert wrong(server, CHAT, {"messages": long})["code"] == "context_length_exceeded"
    error = wrong(server, TEXT, {"prompt": [5] * 256})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


def test_another_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "Hello"}]
        )
    assert caught.value.code == "model_not_found"
    assert "demo" in caught.value.message


def test_paths_and_methods_that_there_are_not(server: Served) -> None:
    assert httpx.get(f"{server.url}/v1/nothing").json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{server.url}/v1/nothing").status_code == 404
    assert httpx.get(f"{server.url}{CHAT}").status_code == 405


def test_messages_print_safely(server: Served) -> None:
    """What a client sent comes back without what steers a terminal."""
    error = wrong(server, CHAT, {"messages": ASKED, "stop": ["\x1b[2J" * 500]})
    assert "\x1b" not in error["message"]
