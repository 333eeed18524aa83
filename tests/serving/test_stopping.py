"""A server that is told to stop: answers end in peace, and new requests are sent elsewhere."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from gptoss_onnx.runtime import Tokenizer
from gptoss_onnx.runtime.engine import Engine
from support.served import HeldMetrics, Served, wait_until

CHAT = "/v1/chat/completions"
Serve = Callable[..., Served]


def body(tokenizer: Tokenizer, **more: Any) -> dict[str, Any]:
    """Return a request whose answer goes on up to its limit."""
    ends = {str(tokenizer.special_tokens[name]): -100 for name in ("<|return|>", "<|end|>")}
    messages = [{"role": "user", "content": "Hello"}]
    return {"messages": messages, "max_tokens": 40, "logit_bias": ends, **more}


def test_streams_finish(serve: Serve, engine_metrics: HeldMetrics, tokenizer: Tokenizer) -> None:
    served = serve()
    asked = body(tokenizer, stream=True)
    with (
        httpx.Client(base_url=served.url) as other,
        httpx.stream("POST", f"{served.url}{CHAT}", json=asked) as stream,
    ):
        lines = stream.iter_lines()
        with engine_metrics.held():
            assert next(lines).startswith("data: ")
            assert other.get("/ready").status_code == 200
            served.stop()
            wait_until(lambda: other.get("/ready").status_code == 503)
            refused = other.post(CHAT, json=body(tokenizer))
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "unavailable"
            assert other.get("/health").status_code == 200
        said = [line.removeprefix("data: ") for line in lines if line]
    assert said[-1] == "[DONE]"
    assert json.loads(said[-2])["choices"][0]["finish_reason"] == "length"
    wait_until(lambda: not served.server.servers[0].is_serving())


def test_what_takes_too_long_is_told(
    serve: Serve, engine: Engine, engine_metrics: HeldMetrics, tokenizer: Tokenizer
) -> None:
    served = serve(drain_seconds=0.2)
    asked = body(tokenizer, stream=True, max_tokens=200)
    with httpx.stream("POST", f"{served.url}{CHAT}", json=asked) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        engine_metrics.may_go_on.clear()
        served.stop()
        wait_until(lambda: all(ticket.cancelled for ticket in tickets(served)))
        engine_metrics.may_go_on.set()
        said = [line.removeprefix("data: ") for line in lines if line]
    error = json.loads(said[-1])["error"]
    assert error["code"] == "unavailable"
    wait_until(lambda: engine.snapshot().active == 0)


def tickets(served: Served) -> list[Any]:
    running = list(served.state._running)
    return [ticket for answer in running for ticket in answer._tickets]
