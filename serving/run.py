"""Run the server: listen, tell when it is ready, and end in peace when it is told to stop."""

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.server import Server, make_server
from gptoss_onnx.serving.state import ServerState

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # to listen on, but not to go to
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    app: Starlette,
    listener: socket.socket,
    *,
    ready: Callable[[], None],
    stopping: Callable[[int], None],
) -> bool:
    """Serve until SIGINT, as of Ctrl-C, or SIGTERM, and then until the answers in work have ended.

    Args:
        app: made by `create_app`.
        listener: made by `open_listener`; closed here.
        ready: called once requests are taken.
        stopping: called after the signal, with how many requests are in work.

    Returns:
        Whether it ended in peace: False after a second Ctrl-C.
    """
    plain = make_server(app, *listener.getsockname()[:2])
    server = _Telling(plain.config, app.state.serving, ready, stopping)
    with contextlib.closing(listener), _signals_noted():
        server.run(sockets=[listener])
    return not server.force_exit


class _Telling(Server):
    """A server that says when it begins and when it is about to end."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        ready: Callable[[], None],
        stopping: Callable[[int], None],
    ) -> None:
        super().__init__(config, state)
        self._ready, self._stopping = ready, stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell."""
        await super().startup(sockets=sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Look whether it is over, and tell."""
        is_over = await super().on_tick(counter)
        if is_over:
            self._stopping(self._state.active)
        return is_over


@contextlib.contextmanager
def _signals_noted() -> Iterator[None]:
    """Let the signals that uvicorn raises again at its end do nothing: it has obeyed them."""
    before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
