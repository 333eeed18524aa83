"""Run the server: listen, tell when it is ready, and end in peace when it is told to stop."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.engine import Engine
from gptoss_onnx.serving.settings import ServerSettings

logger = logging.getLogger(__name__)

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # to listen on, but not to go to
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LONGEST_WRITING = 10  # seconds, for clients that still read when all answers have ended
_BACKLOG = 512  # connections that the system holds until they are accepted


def open_listener(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; 0 takes a free port. Nobody can connect before
    `run_server` listens on it.

    Raises InputError where the host is unknown or the port is not to be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--host: found {host!r:.80}, expected an address of this machine ({error})"
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(
            f"--port: cannot listen on {host} port {port} ({error.strerror}); choose another, or 0 "
            "for a free one"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return where clients on this machine find what listens there."""
    host, port = listener.getsockname()[:2]
    host = _ANY_ADDRESS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Say whether only programs on this machine reach an address or a name to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def run_server(
    app: ASGIApp,
    engine: Engine,
    settings: ServerSettings,
    listener: socket.socket,
    *,
    ready: Callable[[], None],
    stopping: Callable[[int], None],
) -> int | None:
    """Serve until a signal says to stop: SIGINT, as of Ctrl-C, or SIGTERM.

    After the first one no request is taken any more; those that run or wait may end, within
    `settings.drain_seconds`. A second one ends them at once.

    Args:
        app: made by `create_app`.
        engine: its engine; whoever opened it closes it.
        settings: its settings.
        listener: made by `open_listener`; closed here.
        ready: called once requests are taken.
        stopping: called at the first signal, with how many answers have not ended.

    Returns:
        None, or the number of the second signal.
    """
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_graceful_shutdown=_LONGEST_WRITING,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = _Server(config, engine, settings.drain_seconds, ready, stopping)
    with contextlib.closing(listener):
        asyncio.run(server.serve([listener]))
    return server.second_signal


class _Server(uvicorn.Server):
    """A server that lets what it has begun come to its end before it stops."""

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Engine,
        drain_seconds: float,
        ready: Callable[[], None],
        stopping: Callable[[int], None],
    ) -> None:
        super().__init__(config)
        self.second_signal: int | None = None
        self._engine, self._drain_seconds = engine, drain_seconds
        self._ready, self._stopping = ready, stopping
        self._drain: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop in peace, where uvicorn would close its port first and so answer nobody with 503."""
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell."""
        await super().startup(sockets=sockets)
        self._ready()

    def _stop(self, number: int) -> None:
        if self._drain is None:
            now = self._engine.snapshot()
            self._stopping(now.active + now.prefilling + now.queued)
            self._drain = asyncio.create_task(self._end_in_peace())
        else:
            self.second_signal = number
            self.force_exit = self.should_exit = True
            asyncio.get_running_loop().run_in_executor(None, self._engine.close)

    async def _end_in_peace(self) -> None:
        if not await asyncio.to_thread(self._engine.drain, self._drain_seconds):
            logger.warning(
                "answers that had not ended after %g s were broken off", self._drain_seconds
            )
            await asyncio.to_thread(self._engine.close)
        self.should_exit = True
