"""EventStream: server-sent events, which end when the client leaves or reads too slowly.

Not sse-starlette's: that ends all streams at the first signal to stop, and patches uvicorn to hear
of it, while ours may end in peace.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gptoss_onnx.serving.errors import SERVER, ApiError
from gptoss_onnx.serving.running import RunningAnswer
from gptoss_onnx.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

PING = b": ping\n\n"  # a comment: it keeps proxies from closing a silent connection
DONE = b"data: [DONE]\n\n"
CLIENT_LEFT = 499  # nginx's status; nobody is there to see it but the log
Result = TypeVar("Result")


class EventStream(Response):
    """Sends chunks as they come, and closes the running answer whatever happens.

    Args:
        chunks: whole events as bytes, such as `event_bytes` makes. An ApiError from them becomes
            the stream's last event.
        running: what they come of.
        settings: of the server.
        error_bytes: returns the event that tells an error; by default OpenAI's error body.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        running: RunningAnswer,
        settings: ServerSettings,
        error_bytes: Callable[[ApiError], bytes] = lambda error: event_bytes(error.body()),
    ) -> None:
        # no length: it is not known
        super().__init__(None, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks, self._running, self._settings = chunks, running, settings
        self._error_bytes = error_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await unless_gone(receive, self._send(send))
        except ApiError as error:
            if error.status != CLIENT_LEFT:
                raise
        finally:
            self._running.close()

    async def _send(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        try:
            async for chunk in self._chunks:
                await self._send_body(send, chunk)
        except ApiError as error:
            if error.status == CLIENT_LEFT:
                raise
            await self._send_body(send, self._error_bytes(error))
        except Exception:  # the status is sent, so the stream itself has to say it
            logger.exception("a stream failed")
            failed = ApiError(500, "the server failed", SERVER)
            await self._send_body(send, self._error_bytes(failed))
        await self._send_body(send, b"", more=False)

    async def _send_body(self, send: Send, chunk: bytes, more: bool = True) -> None:
        seconds = self._settings.slow_reader_seconds
        try:
            async with asyncio.timeout(seconds):
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
        except TimeoutError:
            logger.warning("a client read nothing of its stream for %g s: cancelled", seconds)
            raise client_left() from None


def event_bytes(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """Return a server-sent event that holds a JSON object, with the event's name if it has one."""
    first = "" if name is None else f"event: {name}\n"
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"{first}data: {text}\n\n".encode()


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what work returns, or cancel it and raise ApiError 499 when the client leaves first.

    Work is cancelled too when the handler is, as some servers do instead of telling of the client.
    """
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise client_left()
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def client_left() -> ApiError:
    """Return the error that ends the work for a client that left."""
    return ApiError(CLIENT_LEFT, "the client left", code="client_left")


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
