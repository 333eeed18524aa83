"""Clients that leave: their rows are free within a step, whatever they were waiting for."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest

from gptoss_onnx.runtime.engine import Engine
from support.served import HeldMetrics, Served, wait_until

CHAT = "/v1/chat/completions"
LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Once"}],
    "temperature": 2,
    "max_tokens": 200,
    "logit_bias": {},
}


@pytest.fixture
def endless(tokenizer: Any) -> dict[str, Any]:
    """Return a request whose answer goes on up to its limit: no token ends it."""
    ends = {str(tokenizer.special_tokens[name]): -100 for name in ("<|return|>", "<|end|>")}
    return LONG | {"logit_bias": ends}


@pytest.fixture(autouse=True)
def _nobody_is_left(engine: Engine) -> Iterator[None]:
    yield
    wait_until(lambda: is_idle(engine))


def is_idle(engine: Engine) -> bool:
    state = engine.snapshot()
    return state.active == state.queued == state.prefilling == 0


def test_a_stream_that_is_closed(
    client: openai.OpenAI, engine: Engine, engine_metrics: HeldMetrics, endless: dict[str, Any]
) -> None:
    before = engine.snapshot().finished.get("cancelled", 0)
    with client.chat.completions.create(model="demo", stream=True, **endless) as stream:
        for _, chunk in zip(range(4), stream, strict=False):
            assert chunk.choices
        engine_metrics.may_go_on.clear()  # the answer is not complete yet, and cannot become so
        assert engine.snapshot().active == 1
    held = engine_metrics.steps
    engine_metrics.may_go_on.set()
    wait_until(lambda: is_idle(engine))
    assert engine.snapshot().finished["cancelled"] == before + 1
    assert engine_metrics.steps - held < 150


def test_a_client_that_waits_for_the_whole_answer(
    server: Served, engine: Engine, engine_metrics: HeldMetrics, endless: dict[str, Any]
) -> None:
    before = engine.snapshot().finished.get("cancelled", 0)
    with engine_metrics.held(), suppress(httpx.ReadTimeout):
        httpx.post(f"{server.url}{CHAT}", json=endless | {"n": 3}, timeout=0.3)
        pytest.fail("the engine was held, and yet there was an answer")
    wait_until(lambda: is_idle(engine))
    assert engine.snapshot().finished["cancelled"] == before + 3


def test_a_client_in_the_queue(
    server: Served, engine: Engine, engine_metrics: HeldMetrics, endless: dict[str, Any]
) -> None:
    with engine_metrics.held():
        with httpx.stream(
            "POST", f"{server.url}{CHAT}", json=endless | {"n": 4, "stream": True}
        ) as first:
            assert first.status_code == 200
            with suppress(httpx.ReadTimeout):
                httpx.post(f"{server.url}{CHAT}", json=endless, timeout=0.3)
                pytest.fail("the engine was held, and yet there was an answer")
        assert not is_idle(engine)
    wait_until(lambda: is_idle(engine))


def test_an_answer_that_takes_too_long(
    serve: Callable[..., Served],
    engine: Engine,
    engine_metrics: HeldMetrics,
    endless: dict[str, Any],
) -> None:
    url = serve(request_seconds=0.2).url
    with engine_metrics.held():
        whole = httpx.post(f"{url}{CHAT}", json=endless)
        stream = httpx.post(f"{url}{CHAT}", json=endless | {"stream": True})
    assert whole.status_code == 504
    assert whole.json()["error"]["code"] == "timeout"
    assert stream.status_code == 200
    assert '"code":"timeout"' in stream.text
    assert "[DONE]" not in stream.text
    wait_until(lambda: is_idle(engine))


def test_a_full_queue(
    server: Served, engine: Engine, engine_metrics: HeldMetrics, endless: dict[str, Any]
) -> None:
    body = endless | {"n": 4, "stream": True}
    streams: list[threading.Thread] = []

    def read() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{server.url}{CHAT}", json=body | {"max_tokens": 8})

    with engine_metrics.held():
        # four rows and a queue of eight
        for count in (4, 8, 12):
            streams.append(threading.Thread(target=read))
            streams[-1].start()
            wait_until(lambda count=count: in_work(engine) >= count)  # type: ignore[misc]
        refused = httpx.post(f"{server.url}{CHAT}", json=endless)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        several = httpx.post(f"{server.url}{CHAT}", json=endless | {"n": 2})
        assert several.status_code == 429
    for stream in streams:
        stream.join()


def in_work(engine: Engine) -> int:
    state = engine.snapshot()
    return state.active + state.queued + state.prefilling


def test_a_cancelled_handler_cancels_its_rows(
    server: Served, engine: Engine, engine_metrics: HeldMetrics, endless: dict[str, Any]
) -> None:
    """Ray Serve cancels the task of a client that left, and tells it nothing."""
    app = server.server.config.app
    content = json.dumps(endless | {"n": 2}).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }

    async def main() -> None:
        messages = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            pytest.fail("the engine was held, and yet there was an answer")

        task = asyncio.create_task(app(scope, receive, send))  # type: ignore[operator, arg-type]  # uvicorn's type also allows a name
        await asyncio.to_thread(wait_until, lambda: in_work(engine) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = engine.snapshot().finished.get("cancelled", 0)
    with engine_metrics.held():
        asyncio.run(main())
    wait_until(lambda: is_idle(engine))
    assert engine.snapshot().finished["cancelled"] == before + 2
