"""limited_protocol: a connection of uvicorn's, with limits of time and of their number."""

import asyncio
import json
from collections.abc import Iterator

from uvicorn.protocols.http.h11_impl import H11Protocol

from gptoss_onnx.serving.errors import unavailable
from gptoss_onnx.serving.settings import ServerSettings

# Connections beyond the limit that are told so. Who is told has to be listened to for a while: a
# connection that is closed with words of the client unread is reset, and takes the answer with it.
REFUSED = 64
_REFUSED_SECONDS = 2.0


def limited_protocol(settings: ServerSettings) -> type[H11Protocol]:
    """Return uvicorn's connection with limits of time: for the head of a request, and for a reader.

    Uvicorn waits without end for a connection's first request, for the rest of a head, and for a
    client that reads nothing of what it was sent.

    It also takes as many connections as come, or answers in a form of its own. Here one too many
    takes the place of that which has waited longest for a request, or for the rest of its head:
    idle and slow clients keep nobody out. Where all have requests in work, it is answered with 503.
    """

    class LimitedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _reader_timer: asyncio.TimerHandle | None = None
        _waits_since: float | None = None  # for a request, by the loop's clock
        _is_refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            super().connection_made(transport)
            self.access_log = False  # ours is in JSON, and leaves out what clients ask
            self._waits_since = self.loop.time()
            self._await_head()
            if len(self.connections) > settings.max_connections:
                self._make_room()

        def data_received(self, data: bytes) -> None:
            if self._is_refused:
                return
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._waits_since = None
                self._stop_head_timer()
            elif self._head_timer is None:  # the beginning of a further request
                self._await_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle.response_complete:  # else the next request was here already
                self._waits_since = self.loop.time()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._reader_timer is None:
                self._reader_timer = self._abort_after(settings.slow_reader_seconds)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_reader_timer()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            # Closing waits for the client to read what is left for it.
            if self._reader_timer is None:
                self._reader_timer = self._abort_after(settings.slow_reader_seconds)

        def connection_lost(self, error: Exception | None) -> None:
            self._stop_head_timer()
            self._stop_reader_timer()
            super().connection_lost(error)

        def give_way(self) -> None:
            """Close an idle connection."""
            self._waits_since = None  # it is gone in the loop's next turn, and no choice till then
            self.transport.abort()

        def _make_room(self) -> None:
            """Close the connection that has waited longest, or this one where none waits."""
            idle = min(self._others_that_wait(), default=None, key=lambda other: other[0])
            if idle is not None:
                idle[1].give_way()
            elif len(self.connections) > settings.max_connections + REFUSED:
                self.transport.abort()
            else:
                self._refuse()

        def _others_that_wait(self) -> Iterator[tuple[float, "LimitedProtocol"]]:
            for other in self.connections:
                assert isinstance(other, LimitedProtocol)
                is_read = other.transport.get_write_buffer_size() == 0
                if other is not self and other._waits_since is not None and is_read:
                    yield other._waits_since, other

        def _refuse(self) -> None:
            """Answer before there is a request, and listen until the client has read it."""
            self._is_refused, self._waits_since = True, None
            self._stop_head_timer()
            self.transport.write(_refusal(settings.max_connections))
            self.transport.write_eof()
            self._head_timer = self._abort_after(_REFUSED_SECONDS)

        def _await_head(self) -> None:
            self._head_timer = self._abort_after(settings.header_seconds)

        def _abort_after(self, seconds: float) -> asyncio.TimerHandle:
            return self.loop.call_later(seconds, self.transport.abort)

        def _stop_head_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _stop_reader_timer(self) -> None:
            if self._reader_timer is not None:
                self._reader_timer.cancel()
                self._reader_timer = None

    return LimitedProtocol


def _refusal(most: int) -> bytes:
    """Return the whole answer to a connection for which there is no place."""
    error = unavailable(f"the server has {most} connections already")
    body = json.dumps(error.body()).encode()
    headers = {
        **error.headers,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = ["HTTP/1.1 503 Service Unavailable", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
