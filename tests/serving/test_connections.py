"""The limit on connections: who waits gives way, and who is refused is told so."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from support.served import PATIENCE, HeldMetrics, Served, wait_until

Serve = Callable[..., Served]
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connected(served: Served, stack: ExitStack) -> socket.socket:
    address = ("127.0.0.1", served.server.port)
    return stack.enter_context(socket.create_connection(address, timeout=PATIENCE))


def is_closed(connection: socket.socket) -> bool:
    """Say whether the server has closed a connection of which all is read."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        connection.settimeout(PATIENCE)


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def count(served: Served) -> int:
    return len(served.server.server_state.connections)


@pytest.mark.parametrize("begun", [b"", HEAD[:20], HEAD])
def test_the_connection_that_has_waited_longest_gives_way(serve: Serve, begun: bytes) -> None:
    """One that has sent nothing, half a head, or whose last request has been answered."""
    served = serve(max_connections=3)
    with ExitStack() as stack:
        waiting: list[socket.socket] = []
        for _ in range(3):
            connection = connected(served, stack)
            waiting.append(connection)
            connection.sendall(begun)
            answer = b""
            while begun == HEAD and not answer.endswith(b"}"):
                answer += connection.recv(65536)
            wait_until(lambda: count(served) == len(waiting))
            time.sleep(0.02)  # so that it is known who waits longest
        assert httpx.get(f"{served.url}/health").status_code == 200
        assert [is_closed(connection) for connection in waiting] == [True, False, False]


def test_requests_in_work_keep_their_connections(serve: Serve, engine_metrics: HeldMetrics) -> None:
    """Who comes then is told so, in OpenAI's words, whatever has been sent by then."""
    served = serve(max_connections=2)
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 30}
    content = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Content-Type: application/json\r\nConnection: close\r\n"
    asked = head + f"Content-Length: {len(content)}\r\n\r\n".encode() + content
    with ExitStack() as stack:
        with engine_metrics.held():
            streams = [connected(served, stack) for _ in range(2)]
            for stream in streams:
                stream.sendall(asked)
            wait_until(lambda: served.state.active == 2)
            answer = httpx.post(f"{served.url}/v1/chat/completions", json=body)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "unavailable"
            assert answer.json()["error"]["message"] == "the server has 2 connections already"
            assert answer.headers["retry-after"] == "1"
            silent = connected(served, stack)  # told without a word of its own
            assert silent.recv(65536).startswith(b"HTTP/1.1 503 ")
        for stream in streams:
            assert b"[DONE]" in received(stream)
    wait_until(lambda: count(served) == 0)
    assert httpx.get(f"{served.url}/health").status_code == 200


def test_who_is_refused_and_stays_is_closed(
    serve: Serve, engine_metrics: HeldMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptoss_onnx.serving.connection._REFUSED_SECONDS", 0.2)
    monkeypatch.setattr("gptoss_onnx.serving.connection.REFUSED", 3)
    served = serve(max_connections=1)
    with ExitStack() as stack:
        with engine_metrics.held():
            busy = connected(served, stack)
            body = b'{"prompt": "Once", "max_tokens": 9, "stream": true}'
            head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            busy.sendall(head % len(body) + body)
            wait_until(lambda: served.state.active == 1)
            crowd = [connected(served, stack) for _ in range(8)]
            told = [received(connection) for connection in crowd]  # up to their end
            assert told[0].startswith(b"HTTP/1.1 503 ")
            assert {answer[:13] for answer in told} <= {b"", b"HTTP/1.1 503 "}
            assert count(served) == 1
        wait_until(lambda: served.state.active == 0)
