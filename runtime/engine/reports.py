"""Reports: what an engine has done, counted for snapshots and told to its observer."""

import logging
import time
from collections.abc import Callable

from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.observer import EngineObserver
from gptoss_onnx.runtime.engine.request import FinishReason

logger = logging.getLogger(__name__)


class Reports:
    """Sums since the engine's beginning; its thread alone adds to them, any may look.

    Attributes: see `EngineSnapshot`.
    """

    def __init__(self, observer: EngineObserver | None) -> None:
        self._observer = observer
        self.finished: dict[FinishReason, int] = {
            "stop": 0,
            "length": 0,
            "cancelled": 0,
            "error": 0,
        }
        self.prompt_tokens = self.cached_tokens = self.generated_tokens = 0
        self.steps = self.prefix_hits = 0

    def began(self, entry: Entry) -> None:
        """A request's turn has come, and it is known how much of its prompt is saved."""
        self.prompt_tokens += entry.prompt.size
        self.cached_tokens += entry.ticket.cached_tokens
        self.prefix_hits += entry.ticket.cached_tokens > 0

    def prefill(self, seconds: float, tokens: int) -> None:
        """So many tokens of a prompt have been run."""
        self._tell(lambda observer: observer.prefill(seconds, tokens))

    def token(self, entry: Entry) -> None:
        """A request has been given a token."""
        self.generated_tokens += 1
        if len(entry.generated) == 1:
            seconds = time.perf_counter() - entry.submitted
            self._tell(lambda observer: observer.first_token(seconds))

    def step(self, seconds: float, rows: int) -> None:
        """A token has been given to each of so many rows."""
        self.steps += 1
        self._tell(lambda observer: observer.step(seconds, rows))

    def ended(self, entry: Entry) -> None:
        """A request has ended."""
        reason = entry.ended
        assert reason is not None
        self.finished[reason] += 1
        seconds = time.perf_counter() - entry.submitted
        self._tell(
            lambda observer: observer.finished(
                reason,
                prompt_tokens=entry.prompt.size,
                cached_tokens=entry.ticket.cached_tokens,
                generated_tokens=len(entry.generated),
                seconds=seconds,
            )
        )

    def _tell(self, call: Callable[[EngineObserver], None]) -> None:
        if self._observer is None:
            return
        try:
            call(self._observer)
        except BaseException:  # the caller's own code: what it counts is not worth an answer
            logger.exception("an observer raised")
