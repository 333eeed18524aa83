"""Engine: many requests on one session, each answered as if it ran alone."""

from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.engine.observer import EngineObserver, EngineSnapshot
from gptoss_onnx.runtime.engine.request import GenerationRequest
from gptoss_onnx.runtime.engine.ticket import Ticket
from gptoss_onnx.runtime.session import Session


class Engine(Closing):
    """Continuous batching on a session; a context manager whose end ends every request.

    Attributes:
        session: what runs; nobody closes it while the engine is open.
        slots: rows that run at once.
        capacity: tokens a row may hold, prompt and answer together.
        chunk: most tokens of a prompt that are run between two steps of the running rows.
        max_queue: requests that may wait.
        prefix_bytes: bytes that saved rows may take.
    """

    def __init__(
        self,
        session: Session,
        *,
        slots: int,
        capacity: int,
        chunk: int,
        max_queue: int,
        prefix_bytes: int,
        observe: EngineObserver | None = None,
    ) -> None:
        raise NotImplementedError

    @staticmethod
    def plan_bytes(
        session: Session, slots: int, capacity: int, chunk: int, prefix_bytes: int
    ) -> int:
        """Return the bytes such an engine may come to take, weights aside; nothing is allocated."""
        raise NotImplementedError

    def submit(self, request: GenerationRequest) -> Ticket:
        """Take a request; its sink hears from the engine's thread. From any thread; never waits.

        Raises:
            QueueFullError: as many requests wait as may; it says when to come again.
            InputError: the prompt is empty, too long, or has ids that no token has, or a setting is
                out of its range.
            EngineClosedError: the engine is draining or closed.
        """
        raise NotImplementedError

    def cancel(self, ticket: Ticket) -> None:
        """Ask that a request end; the same as `Ticket.cancel`."""
        ticket.cancel()

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more requests, wait until those taken have ended, and say whether they have
        within `timeout` seconds (None: however long it takes).
        """
        raise NotImplementedError

    def close(self) -> None:
        """End every request that has not ended, with reason `cancelled`, and free the caches.

        Returns when the thread has ended; from a sink it only asks for the end.
        """
        raise NotImplementedError

    def snapshot(self) -> EngineSnapshot:
        """Return how things are; from any thread, at any time."""
        raise NotImplementedError
