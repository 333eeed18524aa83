"""Entry: one request while it is in an engine, from its submission to its one end."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import check_range, integer, integer_array
from gptoss_onnx.runtime.batch_sampling import TokenLogprobs
from gptoss_onnx.runtime.engine.refusals import told
from gptoss_onnx.runtime.engine.request import FinishReason, GenerationRequest
from gptoss_onnx.runtime.engine.ticket import Ticket
from gptoss_onnx.runtime.sampling import RowSampler, Sampling, check_vocabulary, chosen
from gptoss_onnx.runtime.session import Session
from gptoss_onnx.runtime.stops import stop_token_ids

logger = logging.getLogger(__name__)


class Entry:
    """A request, what it has said, and how it ended.

    Save for `ticket.cancelled`, the engine's thread alone changes it.

    Attributes:
        request: as submitted.
        ticket: what its caller holds.
        prompt: its tokens, int64 (n).
        generated: the tokens of its answer so far. The last one has not been run.
        sampler: chooses its tokens; its random numbers come from the choice's seed alone.
        ended: why it has ended, None while it goes on.
        retried: it has been run again from its tokens, because a step of all rows failed.
        submitted: when, in seconds of `time.perf_counter`.
        began: when its turn came, likewise; None before.
    """

    def __init__(
        self, request: GenerationRequest, prompt: NDArray[np.int64], stop_tokens: frozenset[int]
    ) -> None:
        self.request, self.prompt = request, prompt
        self.ticket = Ticket(prompt.size)
        self.generated: list[int] = []
        self.sampler = RowSampler(_seeded(request), 0)
        self.ended: FinishReason | None = None
        self.retried = False
        self.submitted = time.perf_counter()
        self.began: float | None = None
        self._stop_tokens = stop_tokens
        self._before_end: Callable[[Entry], None] = _nothing
        self._after_end: Callable[[Entry], None] = _nothing

    @classmethod
    def of(cls, request: GenerationRequest, session: Session, most: int) -> Self:
        """Check a request for a session whose rows hold `most` tokens; raises InputError."""
        sampling = chosen(request.sampling)
        check_vocabulary(sampling, session.vocab)
        if sampling.stop:
            raise InputError(
                f"sampling: found the stop text {sampling.stop[0]!r}, expected none: the sink "
                "looks for texts"
            )
        tokens = integer_array("tokens", request.tokens)
        if tokens.ndim != 1 or tokens.size == 0:
            raise InputError(f"tokens: found shape {tokens.shape}, expected at least one token")
        if tokens.size > most:
            raise InputError(
                f"tokens: found {tokens.size}, expected at most {most}, what a row holds here"
            )
        prompt = check_range("tokens", tokens, session.vocab)
        integer("max_new_tokens", request.max_new_tokens, 0)
        integer("index", request.index, 0)
        if request.logprobs is not None:
            integer("logprobs", request.logprobs, 0, session.vocab)
        return cls(
            request, prompt, stop_token_ids(session.package, sampling.stop_tokens, session.vocab)
        )

    @property
    def context(self) -> NDArray[np.int64]:
        """Prompt and answer so far, int64: what must have been run to choose the next token."""
        return np.concatenate([self.prompt, np.array(self.generated, np.int64)])

    @property
    def held_seconds(self) -> float:
        """How long ago its turn came; it has come."""
        assert self.began is not None
        return time.perf_counter() - self.began

    def begin(self, cached_tokens: int) -> None:
        """Take note that its turn has come, and of how much of its prompt was saved."""
        self.began = time.perf_counter()
        self.ticket.cached_tokens = cached_tokens

    def when_ended(
        self, before: Callable[["Entry"], None], after: Callable[["Entry"], None]
    ) -> None:
        """Have both called once when it ends, before and after its sink hears of it."""
        self._before_end, self._after_end = before, after

    def take(self, token: int, logprobs: TokenLogprobs | None, most: int) -> None:
        """Give the next token to constraint and sink, and end the answer where it ends.

        `most` tokens fit in the row, of which the last one chosen need not be: as in
        `Session.generate`.
        """
        self.generated.append(token)
        request = self.request
        try:
            if request.constraint is not None:
                request.constraint.accept(token)
            done = request.sink.token(token, logprobs)
        except BaseException as error:  # the caller's own code, whose Rust may panic, which is
            # none of Exception: its request ends, and no other
            logger.exception("a sink or a constraint raised")
            self.finish("error", told(error))
            return
        if done or token in self._stop_tokens:
            self.finish("stop")
        elif (
            len(self.generated) >= request.max_new_tokens
            or self.prompt.size + len(self.generated) - 1 >= most
        ):
            self.finish("length")

    def finish(self, reason: FinishReason, message: str = "") -> None:
        """End it and tell its sink, unless it has ended."""
        if self.ended is not None:
            return
        self.ended = reason
        self._before_end(self)
        try:
            self.request.sink.finish(reason, message)
        except BaseException:  # the caller's own code, and nothing is left to be ended
            logger.exception("a sink raised when it was told the end (%s)", reason)
        self._after_end(self)


def _nothing(_: Entry) -> None:
    pass


def _seeded(request: GenerationRequest) -> Sampling:
    sampling = request.sampling
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=sampling.seed + request.index)
