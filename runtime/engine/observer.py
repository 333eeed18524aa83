"""What an engine tells of itself: a snapshot when asked, and events to an observer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gptoss_onnx.runtime.engine.request import FinishReason


class EngineObserver(Protocol):
    """Hears what happens, for metrics; the engine's thread calls it, so it must be quick.

    What it raises is logged and changes nothing.
    """

    def first_token(self, seconds: float) -> None:
        """A request has its first token, so long after it was submitted."""

    def prefill(self, seconds: float, tokens: int) -> None:
        """So many tokens of a prompt have been run."""

    def step(self, seconds: float, rows: int) -> None:
        """Each of so many rows has been given one token: running, sampling and sinks together."""

    def finished(
        self,
        reason: FinishReason,
        *,
        prompt_tokens: int,
        cached_tokens: int,
        generated_tokens: int,
        seconds: float,
    ) -> None:
        """A request has ended, so long after it was submitted."""


@dataclass(frozen=True)
class EngineSnapshot:
    """An engine at one moment; sums count from its beginning.

    Attributes:
        slots: rows that can run at once.
        active: rows that run now.
        prefilling: requests whose prompt is being run, 0 or 1.
        queued: requests that wait.
        max_queue: requests that may wait.
        capacity: tokens a row may hold.
        draining: no more requests are taken.
        submitted: requests taken.
        refused: requests refused because the queue was full.
        finished: requests ended, by reason.
        prompt_tokens: tokens of all prompts whose turn came.
        cached_tokens: those of them that were not run.
        generated_tokens: tokens given to sinks.
        steps: decode steps.
        prefix_hits: prompts that began with a saved row.
        prefix_states: rows that are saved now.
        prefix_bytes: bytes they take.
        max_prefix_bytes: bytes they may take.
        cache_bytes: bytes of the slots and the staging row.
    """

    slots: int
    active: int
    prefilling: int
    queued: int
    max_queue: int
    capacity: int
    draining: bool
    submitted: int
    refused: int
    finished: Mapping[FinishReason, int]
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    steps: int
    prefix_hits: int
    prefix_states: int
    prefix_bytes: int
    max_prefix_bytes: int
    cache_bytes: int
