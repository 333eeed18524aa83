"""Sinks that keep what an engine tells them, and requests for them."""

import threading
from collections.abc import Sequence
from typing import Any

from gptoss_onnx.runtime import Sampling
from gptoss_onnx.runtime.engine import (
    Engine,
    FinishReason,
    GenerationRequest,
    Ticket,
    TokenLogprobs,
)

LONGEST_WAIT = 30  # seconds after which a test gives up instead of hanging


class Kept:
    """A sink that keeps everything.

    Attributes:
        tokens: in the order they came.
        logprobs: likewise.
        ends: reasons; one in the end.
        message: of the last end.
        stop_after: tokens after which it says that the answer is complete.
    """

    def __init__(self, stop_after: int | None = None) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprobs | None] = []
        self.ends: list[FinishReason] = []
        self.message = ""
        self.stop_after = stop_after
        self.begun, self._over = threading.Event(), threading.Event()

    def token(self, token: int, logprobs: TokenLogprobs | None) -> bool:
        assert not self.ends
        self.tokens.append(token)
        self.logprobs.append(logprobs)
        self.begun.set()
        return len(self.tokens) == self.stop_after

    def finish(self, reason: FinishReason, message: str) -> None:
        self.ends.append(reason)
        self.message = message
        self._over.set()

    def wait(self) -> "Kept":
        """Wait for the end and return itself."""
        assert self._over.wait(LONGEST_WAIT)
        return self


def asked(
    tokens: Sequence[int],
    sink: Any,
    sampling: Sampling | None = None,
    max_new_tokens: int = 8,
    **more: Any,
) -> GenerationRequest:
    """Return a request, greedy and endless if nothing else is said."""
    chosen = Sampling(stop_tokens=()) if sampling is None else sampling
    return GenerationRequest(tuple(tokens), chosen, max_new_tokens, sink, **more)


def submitted(
    engine: Engine, tokens: Sequence[int], *arguments: Any, **more: Any
) -> tuple[Kept, Ticket]:
    """Submit a request with a sink that keeps everything."""
    sink = Kept()
    return sink, engine.submit(asked(tokens, sink, *arguments, **more))
