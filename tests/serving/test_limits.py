"""Limits on what clients send: sizes, counted as they come, and times."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from support.served import PATIENCE, Served

CHAT = "/v1/chat/completions"
Serve = Callable[..., Served]


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=PATIENCE) as open_:
        yield open_


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def test_a_body_that_says_it_is_too_large(serve: Serve) -> None:
    served = serve(max_body_bytes=1000)
    with connected(served) as connection:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(
            head + b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
        )
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"1000 bytes" in answer


def test_a_body_that_does_not_say_its_size(serve: Serve) -> None:
    served = serve(max_body_bytes=1000)

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{served.url}{CHAT}", content=pieces(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["message"].startswith("body: ")
    fits = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
    padded = fits.encode().ljust(1000)
    assert httpx.post(f"{served.url}{CHAT}", content=padded, headers=headers).status_code == 200


def test_a_body_that_comes_too_slowly(serve: Serve) -> None:
    served = serve(body_seconds=0.2)
    with connected(served) as connection:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(head + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_headers_that_are_too_large(serve: Serve) -> None:
    served = serve(max_header_bytes=2000)
    headers = {"x-long": "x" * 3000}
    answer = httpx.get(f"{served.url}/health", headers=headers)
    assert answer.status_code == 431
    assert answer.json()["error"]["message"].startswith("headers: ")
    with connected(served) as connection:  # and never its end
        connection.sendall(b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 2_500)
        assert everything(connection).startswith(b"HTTP/1.1 400 ")


def test_a_head_that_does_not_come(serve: Serve) -> None:
    served = serve(header_seconds=0.2)
    with connected(served) as connection:
        assert everything(connection) == b""
    with connected(served) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: local")
        assert everything(connection) == b""
    with connected(served) as connection:
        whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(whole)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(whole[:20])
        assert b"200" not in everything(connection)


def test_too_many_requests_at_a_time(serve: Serve) -> None:
    served = serve(max_requests=1)
    assert httpx.get(f"{served.url}/v1/models").status_code == 200
    with connected(served) as connection:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(head + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
        refused = [httpx.get(f"{served.url}/v1/models").status_code for _ in range(20)]
    assert 503 in refused
    assert httpx.get(f"{served.url}/health").status_code == 200


def test_a_body_of_empty_lists(server: Served) -> None:
    """They are read in a second or more, in which Python does nothing else."""
    content = b'{"a":[' + b",".join([b"[]"] * 200_000) + b"]}"
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}{CHAT}", content=content, headers=headers)
    assert answer.status_code == 400
    assert "objects and lists" in answer.json()["error"]["message"]
