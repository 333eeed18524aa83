"""ServeRun: what the options of `serve` ask for, in one value."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptoss_onnx.choices import Activations, Kernels, Provider

if TYPE_CHECKING:
    from gptoss_onnx.memory import MemoryRoom
    from gptoss_onnx.runtime import Session
    from gptoss_onnx.serving.settings import ServerSettings
    from gptoss_onnx.serving.sizes import AskedSizes, Sizes

CALL_BYTES = 200_000_000  # of memory that calls of the graph and requests take for a while


@dataclass(frozen=True)
class ServeRun:
    """One run of `serve`.

    Attributes:
        package: the folder.
        settings: of the server.
        host: address to listen on.
        port: 0 takes a free one.
        asked: the sizes, where the operator has chosen them.
        chunk: tokens of a prompt, read between two tokens of the answers that run.
        max_queue: answers that may wait.
        kernels: as for `Session.open`; so are the next three.
        activations: see there.
        provider: see there.
        threads: see there.
    """

    package: Path
    settings: "ServerSettings"
    host: str
    port: int
    asked: "AskedSizes"
    chunk: int
    max_queue: int
    kernels: Kernels
    activations: Activations
    provider: Provider
    threads: int | None

    def open(self) -> "Session":
        """Load the graph."""
        from gptoss_onnx.runtime import Session

        return Session.open(
            self.package, self.kernels, self.activations, self.provider, self.threads
        )

    def sizes(self, session: "Session", room: "MemoryRoom | None") -> "Sizes":
        """Return sizes that fit into `room`, of which the session has taken its part already.

        Raises InputError where what is asked for does not fit.
        """
        from gptoss_onnx.memory import own_bytes
        from gptoss_onnx.runtime.engine import Engine
        from gptoss_onnx.serving.sizes import choose_sizes

        return choose_sizes(
            self.asked,
            session.manifest.longest,
            weights=sum(file.size for file in session.manifest.weights.files),
            program=(own_bytes() or 0) + CALL_BYTES,
            cache_bytes=lambda slots, capacity: Engine.plan_bytes(
                session, slots, capacity, self.chunk, 0
            ),
            room=room,
        )
