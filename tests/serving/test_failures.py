"""What fails on our side: the client is told in OpenAI's form, and nobody else notices."""

import logging
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from gptoss_onnx.errors import PackageError
from gptoss_onnx.runtime.engine import Engine
from support.served import HeldMetrics, Served, wait_until

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}


class FailingConstraint:
    """A constraint with a defect, which shows at the second token."""

    def __init__(self) -> None:
        self._accepted = 0

    def mask(self, logits: Any) -> None:
        if self._accepted:
            raise RuntimeError("a defect")

    def accept(self, token: int) -> None:
        self._accepted += 1


@pytest.fixture
def failing(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.state.constraints, "make", lambda *_: FailingConstraint())


@pytest.mark.usefixtures("failing")
def test_a_row_that_fails_ends_its_stream_with_an_error(
    client: openai.OpenAI, engine: Engine
) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "Hello"}], stream=True, max_tokens=9
    )
    with pytest.raises(openai.APIError) as caught:
        for _ in stream:
            pass
    assert caught.value.code == "engine_error"
    wait_until(lambda: engine.snapshot().active == 0)


@pytest.mark.usefixtures("failing")
def test_a_row_that_fails_is_a_500(server: Served) -> None:
    answer = httpx.post(f"{server.url}{CHAT}", json=BODY)
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"


def test_others_go_on(server: Served) -> None:
    assert httpx.post(f"{server.url}{CHAT}", json=BODY).status_code == 200


def test_a_defect_is_told_to_the_log_alone(
    server: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the secret of the defect")

    monkeypatch.setattr(server.state.constraints, "make", fail)
    with caplog.at_level(logging.ERROR):
        answer = httpx.post(f"{server.url}{CHAT}", json=BODY)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "the server failed"
    assert answer.headers["x-request-id"] in caplog.text
    assert "the secret of the defect" in caplog.text


def test_a_package_at_fault_says_so(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise PackageError("chat_template.jinja: goes beyond its limits")

    monkeypatch.setattr(server.state.constraints, "make", fail)
    answer = httpx.post(f"{server.url}{CHAT}", json=BODY)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "chat_template.jinja: goes beyond its limits"


def test_a_silent_stream_is_pinged(
    serve: Callable[..., Served], engine: Engine, engine_metrics: HeldMetrics
) -> None:
    url = serve(ping_seconds=0.05).url
    body = BODY | {"stream": True, "max_tokens": 40}
    with (
        engine_metrics.held(),
        httpx.stream("POST", f"{url}{CHAT}", json=body) as stream,
    ):
        assert ": ping" in stream.iter_lines()
    wait_until(lambda: engine.snapshot().active == 0)
