"""Front: the application in front of the replicas.

It sends a conversation's requests to the replica that holds its beginning, and tells the client
where a replica ends before its answer does.

Who may not call is refused here, before anything of a body is read, and what a body may be and take
is limited. The replicas check both again: they trust no front.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from gptoss_onnx.serving.body import read_content
from gptoss_onnx.serving.body_room import BodyRoom
from gptoss_onnx.serving.cors import with_cors
from gptoss_onnx.serving.errors import SERVER, ApiError, unavailable
from gptoss_onnx.serving.guard import Gate, is_open
from gptoss_onnx.serving.replicas.keys import RESPONSES, RoutingKeys
from gptoss_onnx.serving.replicas.relay import passed_on
from gptoss_onnx.serving.settings import ServerSettings
from gptoss_onnx.serving.state import STOPPING
from gptoss_onnx.serving.streaming import CLIENT_LEFT, event_bytes, unless_gone

_METRICS, _HEALTH = "/metrics", "/health"
_TICK = 0.05  # seconds between looks at what is still in work
_RETRY_SECONDS = "1"


class ReplicaLostError(Exception):
    """The replica that worked on a request has ended; the message says so to the client."""


# Takes a routing key, a scope and a body; yields the messages of the answer. Raises
# ReplicaLostError, and ApiError where no replica takes the request.
Ask = Callable[[str, Mapping[str, Any], bytes], AsyncGenerator[Message, None]]


class Front:
    """An ASGI application that relays every request to a replica."""

    def __init__(self, ask: Ask, settings: ServerSettings) -> None:
        self._ask, self._settings = ask, settings
        self._keys, self._room = RoutingKeys(), BodyRoom(settings.max_bodies_bytes)
        self._gate = Gate(settings)
        self._is_stopping = False
        self._active = 0

    async def drain(self) -> bool:
        """Take no more requests, and wait until those in work have ended, for `drain_seconds` at
        most; returns whether they have.
        """
        self._is_stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_seconds
        while self._active and loop.time() < deadline:
            await asyncio.sleep(_TICK)
        return not self._active

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        self._active += 1
        try:
            if self._is_stopping and scope["path"] != _HEALTH:
                raise unavailable(STOPPING)
            if scope["path"] == _METRICS:
                raise ApiError(
                    404, "metrics: each replica has its own, and none speaks for all of them"
                )
            if self._active > self._settings.max_requests:
                raise unavailable(
                    f"the server has {self._settings.max_requests} requests in work already"
                )
            self._gate.check(scope)
            with self._room.body() as counted:
                body = b""
                if not is_open(scope["path"]):  # nothing there takes a body
                    body = await read_content(Request(scope, receive), self._settings, counted)
                await unless_gone(receive, self._relay(scope, body, send))
        except ApiError as error:
            if error.status != CLIENT_LEFT:
                refusal = with_cors(error.response(), self._settings)
                await refusal(scope, receive, send)
        finally:
            self._active -= 1

    async def _relay(self, scope: Scope, body: bytes, send: Send) -> None:
        path = scope["path"]
        key = await asyncio.to_thread(self._keys.of, path, body)
        answer = self._ask(key, passed_on(scope), body)
        begun, is_stream, start = False, False, None
        try:
            async for message in answer:
                if message["type"] == "http.response.start":
                    start = message  # until there is more, the answer may still be another one
                    continue
                if start is not None:
                    is_stream = _is_stream(start)
                    if path == RESPONSES:
                        self._keys.learn(key, message.get("body", b""))
                    await send(start)
                    begun, start = True, None
                await send(message)
        except ReplicaLostError as error:
            lost = ApiError(
                503, str(error), SERVER, "replica_lost", headers={"Retry-After": _RETRY_SECONDS}
            )
            if not begun:
                raise lost from error
            if not is_stream:
                raise  # the connection breaks off, which is all that is left to say
            last = event_bytes(lost.body())
            await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            await answer.aclose()


def _is_stream(start: Message) -> bool:
    kind = Headers(raw=start["headers"]).get("content-type", "")
    return kind.startswith("text/event-stream")


async def _live(receive: Receive, send: Send) -> None:
    """Begin and end with the program that this runs in."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
