"""A server on a package of scripts, which says what the last letter of a request asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.engine import Engine
from gptoss_onnx.serving.app import create_app
from gptoss_onnx.serving.settings import ServerSettings
from support.served import HeldMetrics, served

CAPACITY = 4096


@dataclass(frozen=True)
class ScriptedServer:
    """A server that runs; its model is called `gpt-oss`."""

    url: str
    engine: Engine
    metrics: HeldMetrics

    def cancelled(self) -> int:
        """Return how many answers ended because nobody wanted them any longer."""
        return self.engine.snapshot().finished.get("cancelled", 0)


@contextmanager
def scripted_server(package: Path, **settings: Any) -> Iterator[ScriptedServer]:
    """Serve a package of `write_scripted_package` until the block ends."""
    metrics = HeldMetrics()
    with (
        Session.open(package, threads=1) as session,
        Engine(
            session,
            slots=4,
            capacity=CAPACITY,
            chunk=256,
            max_queue=8,
            prefix_bytes=4_000_000,
            observe=metrics,
        ) as engine,
    ):
        app = create_app(
            engine, session.tokenizer, ServerSettings(model="gpt-oss", **settings), metrics
        )
        with served(app) as running:
            yield ScriptedServer(running.url, engine, metrics)
