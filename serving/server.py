"""make_server: uvicorn with the limits that it lacks, and an end that lets answers end."""

import asyncio
import logging

import uvicorn
from starlette.applications import Starlette

from gptoss_onnx.serving.connection import limited_protocol
from gptoss_onnx.serving.state import ServerState

logger = logging.getLogger(__name__)

_TICK = 0.05  # seconds between looks at what is still in work
_IDLE_SECONDS = 30  # that a connection stays open between requests: longer than clients keep them
_LAST_SECONDS = 5  # for connections to close after the answers have ended


def make_server(app: Starlette, host: str, port: int) -> "Server":
    """Return a server of `create_app`'s application; `run` serves until SIGTERM or SIGINT.

    From the signal on new requests get 503 while those in work end, for `drain_seconds` at most;
    then what is left is cancelled. A second SIGINT ends everything at once.
    """
    state = app.state.serving
    assert isinstance(state, ServerState)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=limited_protocol(state.settings),
        ws="none",
        lifespan="off",  # the application has none, and uvicorn would complain of a forced end
        loop="asyncio",
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nobody is believed who claims to be somebody else
        h11_max_incomplete_event_size=state.settings.max_header_bytes,
        timeout_graceful_shutdown=_LAST_SECONDS,
        timeout_keep_alive=_IDLE_SECONDS,
    )
    return Server(config, state)


class Server(uvicorn.Server):
    """Uvicorn's server, which refuses new requests for a while before it stops listening.

    Uvicorn itself stops listening at once, so that clients and balancers see a dead machine instead
    of one that tells them to go elsewhere.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config)
        self._state = state

    @property
    def port(self) -> int:
        """The port that it listens on, once it has started; the system chose it if 0 was asked."""
        port = self.servers[0].sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port

    async def main_loop(self) -> None:
        """Serve until told to stop, and then until the answers in work have ended."""
        await super().main_loop()
        self._state.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._state.settings.drain_seconds
        while self._state.active and not self.force_exit and loop.time() < deadline:
            await asyncio.sleep(_TICK)
        if self._state.active:
            logger.warning("%d requests did not end in time: cancelled", self._state.active)
            self._state.cancel_all()
