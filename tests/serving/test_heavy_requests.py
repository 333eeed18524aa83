"""Requests that cost much: they wait for each other, and others do not wait for them."""

import json
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest

from support.served import PATIENCE, Served, wait_until

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
ANY_JSON: dict[str, Any] = {**HELLO, "response_format": {"type": "json_object"}}
MANY = 40  # more than asyncio has threads


def sent(served: Served, stack: ExitStack, body: dict[str, Any]) -> socket.socket:
    """Send a request on a connection of its own, and wait for nothing."""
    connection = socket.create_connection(("127.0.0.1", served.server.port), timeout=PATIENCE)
    stack.enter_context(connection)
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def test_schemas_that_take_long_leave_threads_for_others(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    go_on, tried = threading.Event(), []

    def make(response_format: Any, *_: Any) -> None:
        if response_format is not None:
            tried.append(1)
            assert go_on.wait(PATIENCE)

    monkeypatch.setattr(served.state.constraints, "make", make)
    with ExitStack() as stack:
        stack.callback(go_on.set)
        waiting = [sent(served, stack, ANY_JSON) for _ in range(MANY)]
        wait_until(lambda: served.state.active == MANY)
        assert httpx.post(f"{served.url}{CHAT}", json=HELLO, timeout=10).status_code == 200
        assert len(tried) < 5
        for connection in waiting[3:]:
            connection.close()
        wait_until(lambda: served.state.active == 3)  # who leaves does not wait to the end
        go_on.set()
        assert waiting[2].recv(12) == b"HTTP/1.1 200"
    assert len(tried) < 5


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_choices_of_a_prompt_share_its_tokens(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """To make an array of a long prompt takes milliseconds, on the event loop once a choice."""
    served, asked = serve(), []
    own = served.state.engine.submit

    def noting(request: Any) -> Any:
        asked.append(request.tokens)
        return own(request)

    monkeypatch.setattr(served.state.engine, "submit", noting)
    body = {**HELLO, "prompt": "Hello", "n": 5}
    assert httpx.post(f"{served.url}{path}", json=body, timeout=PATIENCE).status_code == 200
    assert len(asked) == 5
    assert all(tokens is asked[0] for tokens in asked)
    assert isinstance(asked[0], np.ndarray) and asked[0].dtype == np.int64


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "a" * 3_000_000}]}),
        ("/v1/completions", {"prompt": ["a" * 3_000_000]}),
        ("/v1/responses", {"input": "a" * 3_000_000}),
        ("/v1/responses", {"input": "a" * 3_000_000, "truncation": "auto"}),
        ("/tokenize", {"messages": [{"role": "user", "content": "a" * 3_000_000}]}),
        ("/tokenize", {"prompt": "a" * 3_000_000}),
    ],
)
def test_a_text_that_cannot_fit_is_not_made_tokens(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    """It would take gigabytes."""
    served, longest = serve(), 0
    for name in ("encode", "encode_plain"):
        own = getattr(served.state.tokenizer, name)

        def noting(text: str, *rest: Any, own: Any = own) -> Any:
            nonlocal longest
            longest = max(longest, len(text))
            return own(text, *rest)

        monkeypatch.setattr(served.state.tokenizer, name, noting)
    answer = httpx.post(f"{served.url}{path}", json=body, timeout=PATIENCE)
    assert answer.status_code == 400
    assert "characters" in answer.json()["error"]["message"]
    assert longest < 10_000
