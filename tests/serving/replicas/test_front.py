"""The front and the replica's side of it, without Ray between them: an application is answered as
if it were asked itself, and what is lost on the way is told.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from gptoss_onnx.serving.errors import unavailable
from gptoss_onnx.serving.replicas.front import Front, ReplicaLostError
from gptoss_onnx.serving.replicas.relay import relayed
from gptoss_onnx.serving.settings import ServerSettings

pytestmark = pytest.mark.anyio

LOST = "the replica has ended"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Model:
    """An application as a replica has it, which counts what it begins and what is cancelled."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.app = Starlette(
            routes=[
                Route("/echo", self.echo, methods=["POST"]),
                Route("/stream", self.stream),
                Route("/endless", self.endless),
            ]
        )

    async def echo(self, request: Request) -> Response:
        body = json.loads(await request.body())
        return JSONResponse({"body": body, "host": request.headers["host"]}, 201)

    async def stream(self, request: Request) -> Response:
        async def events() -> AsyncGenerator[bytes, None]:
            for number in range(3):
                yield f"data: {number}\n\n".encode()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def endless(self, request: Request) -> Response:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1
        raise AssertionError


class Replicas:
    """Stands for Ray: relays to a model, and fails after so many messages."""

    def __init__(self, model: Model, fail_after: int | None = None) -> None:
        self.model, self.fail_after = model, fail_after
        self.keys: list[str] = []

    async def ask(
        self, key: str, scope: Mapping[str, Any], body: bytes
    ) -> AsyncGenerator[Message, None]:
        self.keys.append(key)
        count = 0
        async for message in relayed(self.model.app, scope, body):
            if count == self.fail_after:
                raise ReplicaLostError(LOST)
            yield message
            count += 1


def client(replicas: Any, **settings: Any) -> httpx.AsyncClient:
    front = Front(replicas.ask, ServerSettings(model="m", **settings))
    transport = httpx.ASGITransport(app=front)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def test_answers_come_as_they_are() -> None:
    async with client(Replicas(Model())) as http:
        answer = await http.post("/echo", json={"a": [1, "ä"]})
        assert (answer.status_code, answer.json()["body"]) == (201, {"a": [1, "ä"]})
        assert answer.json()["host"] == "127.0.0.1"
        assert (await http.get("/stream")).text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert (await http.get("/nothing")).status_code == 404


@pytest.mark.parametrize("path", ["/stream", "/echo"])
@pytest.mark.parametrize("after", [0, 1])
async def test_a_replica_that_ends_before_its_answer_began_is_an_error_to_try_again(
    path: str, after: int
) -> None:
    async with client(Replicas(Model(), after)) as http:
        if path == "/stream":
            answer = await http.get(path)
        else:
            answer = await http.post(path, json={})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    error = answer.json()["error"]
    assert (error["message"], error["code"]) == (LOST, "replica_lost")


async def test_a_stream_that_breaks_off_says_so() -> None:
    async with client(Replicas(Model(), fail_after=3)) as http:
        answer = await http.get("/stream")
    assert answer.status_code == 200
    *events, last, end = answer.text.split("\n\n")
    assert events == ["data: 0", "data: 1"]
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == LOST
    assert end == ""


async def test_no_replica_at_all_is_503() -> None:
    class Nobody:
        async def ask(self, *_: Any) -> AsyncGenerator[Message, None]:
            raise unavailable("no replica takes requests")
            yield {}

    async with client(Nobody()) as http:
        answer = await http.get("/stream")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def test_bodies_have_a_limit() -> None:
    replicas = Replicas(Model())
    async with client(replicas, max_body_bytes=100) as http:
        answer = await http.post("/echo", json="x" * 101)
    assert (answer.status_code, replicas.keys) == (413, [])


async def test_who_may_not_call_is_refused_before_a_body_is_read() -> None:
    replicas, sent = Replicas(Model()), []
    settings = ServerSettings(model="m", api_keys=("key",), cors_origins=("https://a.example",))
    front = Front(replicas.ask, settings)

    async def receive() -> Message:
        raise AssertionError("nothing is to be read")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [
        (b"authorization", b"Bearer other"),
        (b"content-type", b"application/json"),
        (b"origin", b"https://a.example"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/echo", "headers": headers}
    await front({**scope, "query_string": b""}, receive, send)
    assert (sent[0]["status"], replicas.keys) == (401, [])
    # the page that asks can read why
    assert (b"access-control-allow-origin", b"https://a.example") in sent[0]["headers"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"x-long": "x" * 20_000}, 431),
    ],
)
async def test_the_front_refuses_what_a_server_refuses(
    headers: dict[str, str], status: int
) -> None:
    replicas = Replicas(Model())
    async with client(replicas) as http:
        given = {"content-type": "application/json", **headers}
        answer = await http.post("/echo", content=b"{}", headers=given)
    assert (answer.status_code, replicas.keys) == (status, [])


async def test_a_body_on_an_open_path_is_not_read() -> None:
    """Everybody may send one there."""
    sizes = []

    class Nobody:
        async def ask(self, _: str, scope: Any, body: bytes) -> AsyncGenerator[Message, None]:
            sizes.append((scope["path"], len(body)))
            raise unavailable("no replica takes requests")
            yield {}

    async with client(Nobody(), api_keys=("key",)) as http:
        answer = await http.post("/health", content=b"x" * 1000)
    assert (answer.status_code, sizes) == (503, [("/health", 0)])


async def test_a_page_may_ask_before_it_calls() -> None:
    headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
    settings: dict[str, Any] = {"api_keys": ("key",), "cors_origins": ("https://a.example",)}
    async with client(Replicas(Model()), **settings) as http:
        answer = await http.options("/echo", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


async def test_metrics_of_several_are_refused() -> None:
    async with client(Replicas(Model())) as http:
        assert (await http.get("/metrics")).status_code == 404


async def test_cancelling_the_front_cancels_the_application() -> None:
    """As Ray does when a client leaves."""
    model = Model()
    async with client(Replicas(model)) as http:
        task = asyncio.create_task(http.get("/endless"))
        while not model.begun:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (model.begun, model.cancelled) == (1, 1)


async def test_a_client_that_leaves_cancels_the_application() -> None:
    model = Model()
    front = Front(Replicas(model).ask, ServerSettings(model="m"))
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        while not model.begun:
            await asyncio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    host = [(b"host", b"localhost")]
    scope = {"type": "http", "method": "GET", "path": "/endless", "headers": host}
    await front({**scope, "query_string": b""}, receive, send)
    assert (model.begun, model.cancelled, sent) == (1, 1, [])


async def test_draining_lets_answers_end_and_refuses_others() -> None:
    model, released = Model(), asyncio.Event()

    async def late(request: Request) -> Response:
        model.begun += 1
        await released.wait()
        return JSONResponse({})

    model.app.router.routes.append(Route("/late", late))
    front = Front(Replicas(model).ask, ServerSettings(model="m"))
    transport = httpx.ASGITransport(app=front)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        answer = asyncio.create_task(http.get("/late"))
        while not model.begun:
            await asyncio.sleep(0.001)
        draining = asyncio.create_task(front.drain())
        await asyncio.sleep(0)
        refused = await http.get("/stream")
        assert (refused.status_code, draining.done()) == (503, False)
        assert (await http.get("/health")).status_code == 404  # of the model: it is asked
        released.set()
        assert (await answer).status_code == 200
        assert await draining


async def test_an_application_that_fails_fails_here() -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        [message async for message in relayed(broken, {}, b"")]
