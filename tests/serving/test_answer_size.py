"""Answers that are sent as a whole: what fits is settled before a token is generated."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gptoss_onnx.runtime.engine import Engine
from support.served import Served

Serve = Callable[..., Served]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ENDLESS = {"logit_bias": {}, "temperature": 2, "seed": 1, "n": 2, "max_tokens": 30}
PER_TOKEN = 100 * (1 + 5)  # of log-probabilities, with five others
ROOM = 2 * 7 * PER_TOKEN + 99  # for seven tokens of each of two answers


def bodies() -> list[tuple[str, dict[str, Any]]]:
    chat = {"messages": [{"role": "user", "content": "Hello"}]}
    return [
        (CHAT, {**ENDLESS, **chat, "logprobs": True, "top_logprobs": 5}),
        (TEXT, {**ENDLESS, "prompt": "Once upon", "logprobs": 5}),
    ]


@pytest.mark.parametrize("place", range(2))
def test_log_probabilities_end_an_answer_where_they_are_full(serve: Serve, place: int) -> None:
    url = serve(max_answer_bytes=ROOM).url
    path, body = bodies()[place]
    whole = httpx.post(f"{url}{path}", json=body, timeout=60).json()
    assert whole["usage"]["completion_tokens"] <= 14
    assert "length" in {choice["finish_reason"] for choice in whole["choices"]}
    plain = {name: value for name, value in body.items() if "logprobs" not in name}
    assert (
        httpx.post(f"{url}{path}", json=plain, timeout=60).json()["usage"]["completion_tokens"] > 14
    )


def test_a_stream_goes_on(serve: Serve) -> None:
    url = serve(max_answer_bytes=ROOM).url
    path, body = bodies()[1]
    said = httpx.post(f"{url}{path}", json=body | {"stream": True}, timeout=60).text
    assert said.count("data: ") > 16


@pytest.mark.parametrize("place", range(2))
def test_what_cannot_fit_is_refused_at_once(serve: Serve, engine: Engine, place: int) -> None:
    url, before = serve(max_answer_bytes=PER_TOKEN).url, engine.snapshot().submitted
    path, body = bodies()[place]
    answer = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("answer_too_large", "n")
    assert engine.snapshot().submitted == before


def test_a_response_is_bounded_as_well(serve: Serve) -> None:
    url = serve(max_answer_bytes=9 * PER_TOKEN).url
    body = {"input": "Hello", "max_output_tokens": 40, "temperature": 2, "top_logprobs": 5}
    body |= {"include": ["message.output_text.logprobs"]}
    made = httpx.post(f"{url}/v1/responses", json=body, timeout=60).json()
    assert made["usage"]["output_tokens"] <= 9
