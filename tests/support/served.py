"""An application behind the real server on a port of its own, in a thread, for the length of a
block.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.applications import Starlette

from gptoss_onnx.serving.metrics import ServerMetrics
from gptoss_onnx.serving.server import Server, make_server
from gptoss_onnx.serving.state import ServerState

PATIENCE = 20.0  # seconds for what takes milliseconds on a machine that has nothing else to do


@dataclass(frozen=True)
class Served:
    """A server that runs: its address, itself, and what its requests share."""

    url: str
    server: Server
    state: ServerState

    def stop(self) -> None:
        """Do what a SIGTERM does."""
        self.server.should_exit = True


@contextmanager
def served(app: Starlette) -> Iterator[Served]:
    """Serve an application until the block ends."""
    server = make_server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        yield Served(f"http://127.0.0.1:{server.port}", server, app.state.serving)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for what another thread does; fails when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


class HeldMetrics(ServerMetrics):
    """Metrics that can stop the engine: while it is held, it waits at the end of each step.

    So a test decides how far an answer is, instead of hoping for a speed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.steps = 0

    def step(self, seconds: float, rows: int) -> None:
        super().step(seconds, rows)
        self.steps += 1
        assert self.may_go_on.wait(PATIENCE)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the engine until the block ends."""
        self.may_go_on.clear()
        try:
            yield
        finally:
            self.may_go_on.set()
