"""Engine: many requests on one session, each answered as if it ran alone."""

import logging
import threading
from collections.abc import Sequence

from gptoss_onnx.runtime.arguments import integer
from gptoss_onnx.runtime.cache_layout import MOST
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.inbox import Inbox
from gptoss_onnx.runtime.engine.memory import check_rows, check_state, plan_bytes
from gptoss_onnx.runtime.engine.observer import EngineObserver, EngineSnapshot
from gptoss_onnx.runtime.engine.pace import Pace
from gptoss_onnx.runtime.engine.prefixes import Prefixes
from gptoss_onnx.runtime.engine.refusals import told
from gptoss_onnx.runtime.engine.reports import Reports
from gptoss_onnx.runtime.engine.request import FinishReason, GenerationRequest
from gptoss_onnx.runtime.engine.rows import ActiveRows
from gptoss_onnx.runtime.engine.scheduler import Scheduler
from gptoss_onnx.runtime.engine.staging import Staging
from gptoss_onnx.runtime.engine.ticket import Ticket
from gptoss_onnx.runtime.row_state import RowState
from gptoss_onnx.runtime.session import Session

logger = logging.getLogger(__name__)

MOST_BYTES = 2**62


class Engine(Closing):
    """Continuous batching on a session; a context manager whose end ends every request.

    One thread does everything, step by step. A step runs at most one chunk of the prompt whose
    turn it is, and gives each running answer one token: nobody who runs waits longer than a chunk.
    Prompts are run first come, first served, in a row of their own, and get a slot when they are
    done. Saved rows are reused where a prompt of the same owner begins like one: the next turn of a
    chat runs what is new alone.

    An answer does not depend on what else runs, up to rounding: its random numbers come from the
    seed and the choice's index, and a row of a batch sees itself alone. (A batch of another size,
    or a prompt cut into other chunks, adds up the same numbers in another order. That can decide
    between two tokens that are as good as equal.)

    Attributes:
        session: what runs; it stays open longer than the engine.
        slots: rows that run at once.
        capacity: tokens a row may hold, prompt and answer together; never more than the model
            takes.
        chunk: most tokens of a prompt that are run in a step.
        max_queue: requests that may wait for a slot.
        prefix_bytes: bytes that saved rows may take; 0 saves none.
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
        prefixes: Sequence[RowState] = (),
    ) -> None:
        """Allocate the caches, see `plan_bytes`, and start the thread.

        Prompts may begin with one of `prefixes`, rows that were saved before, such as that of a
        long system prompt, whoever asks. They count in `prefix_bytes`, and go when others are used
        more recently.

        Raises:
            InputError: a number is out of its range, or a row was saved from another package.
            PackageError: the package's rows cannot go their own ways.
            RuntimeUnavailable: there is no memory for the caches.
        """
        sizes = checked_sizes(session, slots, capacity, chunk, prefix_bytes)
        self.session = session
        self.slots, self.capacity, self.chunk, self.prefix_bytes = sizes
        self.max_queue = integer("max_queue", max_queue, 0, MOST)
        self._inbox = Inbox(self.slots, self.max_queue)
        self._reports, self._pace = Reports(observe), Pace(self.slots)
        self._prefixes = Prefixes(session.manifest.cache, self.prefix_bytes)
        for state in prefixes:
            check_state(session, state)
            self._prefixes.add(state)
        self._staging = Staging(session, self.capacity, self.chunk, self._prefixes)
        self._rows = ActiveRows(session, self.slots, self.capacity, self._prefixes)
        self._scheduler = Scheduler(
            session, self._inbox, self._staging, self._rows, self._reports, self.capacity
        )
        self._failure: str | None = None  # what the engine ended by, `close` aside
        # daemon: an interpreter that ends without `close` does not wait for it
        self._thread = threading.Thread(target=self._run, name="gptoss-engine", daemon=True)
        self._thread.start()

    @staticmethod
    def plan_bytes(
        session: Session, slots: int, capacity: int, chunk: int, prefix_bytes: int
    ) -> int:
        """Return the bytes such an engine may come to take, weights and activations aside.

        Nothing is allocated. Raises what the constructor raises for wrong numbers.
        """
        return plan_bytes(session, *checked_sizes(session, slots, capacity, chunk, prefix_bytes))

    def submit(self, request: GenerationRequest) -> Ticket:
        """Take a request; its sink hears from the engine's thread. From any thread; never waits.

        Raises:
            QueueFullError: as many requests wait as may; it says when to come again.
            InputError: the prompt is empty, too long, or has ids that no token has, or a setting
                is out of its range.
            EngineClosedError: the engine is draining or closed.
        """
        entry = Entry.of(request, self.session, self.capacity)
        entry.when_ended(self._count_end, self._inbox.leave)
        self._inbox.put(entry, self._pace.seconds_until_place)
        return entry.ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ask that a request end; the same as `Ticket.cancel`."""
        ticket.cancel()

    def drain(self, timeout: float | None = None) -> bool:
        """Take no more requests, wait until those taken have ended, and say whether they have
        within `timeout` seconds (None: however long it takes). Not for sinks to call.
        """
        self._inbox.refuse("engine: found it draining, expected an open one")
        return self._inbox.wait_until_empty(timeout)

    def close(self) -> None:
        """End every request that has not ended, with reason `cancelled`, and free the caches.

        Returns when the thread has ended, after the step it is in; from a sink it asks for the end
        alone.
        """
        self._inbox.end("engine: found it closed, expected an open one")
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def snapshot(self) -> EngineSnapshot:
        """Return how things are; from any thread, at any time."""
        reports, inbox = self._reports, self._inbox
        return EngineSnapshot(
            slots=self.slots,
            active=len(self._rows.entries),
            prefilling=int(self._scheduler.prompt is not None),
            queued=len(inbox),
            max_queue=self.max_queue,
            capacity=self.capacity,
            draining=inbox.refusal is not None,
            submitted=inbox.submitted,
            refused=inbox.refused,
            finished=dict(reports.finished),
            prompt_tokens=reports.prompt_tokens,
            cached_tokens=reports.cached_tokens,
            generated_tokens=reports.generated_tokens,
            steps=reports.steps,
            prefix_hits=reports.prefix_hits,
            prefix_states=len(self._prefixes),
            prefix_bytes=self._prefixes.nbytes,
            max_prefix_bytes=self.prefix_bytes,
            cache_bytes=self._rows.nbytes + self._staging.nbytes,
        )

    def _count_end(self, entry: Entry) -> None:
        self._reports.ended(entry)
        if entry.began is not None:
            self._pace.measure(entry.held_seconds)

    def _run(self) -> None:
        """The thread: a step after the other, until the inbox says that it is over."""
        while not self._inbox.ending:
            if not self._scheduler.busy:
                self._inbox.wait_for_entry()
            try:
                self._scheduler.step()
            except BaseException as error:  # whatever it is, every request ends, the next ones run
                logger.exception("a step failed, and every request with it")
                self._end_all("error", told(error))
        if self._failure is None:
            self._end_all("cancelled", "the engine was closed")
        else:  # those taken since
            self._end_all("error", self._failure)
        self._prefixes.clear()
        self._scheduler.close()

    def _end_all(self, reason: FinishReason, message: str) -> None:
        try:
            self._scheduler.end_all(reason, message)
        except (
            BaseException
        ) as error:  # without caches there is nothing that the next ones could have
            logger.exception("the caches cannot be reset; the engine ends")
            self._failure = told(error)
            self._inbox.end(f"engine: found it ended by a failure ({self._failure})")


def checked_sizes(
    session: Session, slots: int, capacity: int, chunk: int, prefix_bytes: int
) -> tuple[int, int, int, int]:
    """Return the numbers as an engine takes them; raises InputError, and PackageError for a package
    that cannot be batched.
    """
    check_rows(session)
    slots = integer("slots", slots, 1, MOST)
    capacity = min(integer("capacity", capacity, 1, MOST), session.manifest.longest)
    chunk = min(integer("chunk", chunk, 1, MOST), capacity)
    return slots, capacity, chunk, integer("prefix_bytes", prefix_bytes, 0, MOST_BYTES)
