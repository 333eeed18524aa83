"""ChoiceSink: turns the tokens of one choice into events, in the engine's thread."""

import logging
from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime.engine import Constraint, FinishReason, TokenLogprobs
from gptoss_onnx.runtime.sampling import Sampling
from gptoss_onnx.serving.answers import Answer, AnswerDelta
from gptoss_onnx.serving.errors import SERVER, ApiError, unavailable
from gptoss_onnx.serving.mailbox import Mailbox

logger = logging.getLogger(__name__)

_LOGPROB_BYTES = 100
_LONGEST_JOINED = 1_000  # characters, so that joining takes no time


class Reader(Protocol):
    """What turns tokens into deltas: `answers.AnswerReader`, or `PlainReader` for completions.

    Attributes:
        problem: what of the package failed and ended the answer; mostly None.
    """

    problem: GptOssError | None

    @property
    def done(self) -> bool:
        """Whether the answer is complete: what follows is no part of it."""

    def push(self, token: int) -> list[AnswerDelta]:
        """Take a token and return what is certain by now."""

    def finish(self) -> list[AnswerDelta]:
        """Return what was held back."""

    def answer(self) -> Answer:
        """Return the whole answer."""


@dataclass(frozen=True)
class Choice:
    """One answer that a request asks for.

    Attributes:
        tokens: the prompt's ids, (n). All choices of a prompt share one array: it is made where
            prompts are read, beside the event loop, which then only hands it on.
        sampling: how tokens are chosen; `index` is added to its seed.
        max_new_tokens: at most so many.
        index: which of the answers to this prompt, from 0.
        reader: of its own.
        control: ids that are no text; see `ChoiceSink`.
        logprobs: how many of the most probable tokens are told beside each chosen one; None tells
            nothing.
        constraint: of its own.
    """

    tokens: NDArray[np.int64]
    sampling: Sampling
    max_new_tokens: int
    index: int
    reader: Reader
    control: Set[int]
    logprobs: int | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True)
class AnswerEvent:
    """What became certain of one choice.

    Attributes:
        choice: its place among the request's choices.
        deltas: new pieces, in order.
        logprobs: of the tokens of the content in `deltas`.
        finish_reason: in the last event of a choice that ended well.
        failure: in the last event of one that did not.
    """

    choice: int
    deltas: tuple[AnswerDelta, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: Literal["stop", "length"] | None = None
    failure: ApiError | None = None

    @property
    def text_size(self) -> int:
        """How many characters its texts have."""
        return sum(len(delta.text) for delta in self.deltas)

    @property
    def size(self) -> int:
        """About how many bytes its texts and log-probabilities take."""
        return self.text_size + sum(logprob_bytes(len(entry.top)) for entry in self.logprobs)


def logprob_bytes(top: int) -> int:
    """Return about how many bytes the log-probabilities of a token take, with `top` others."""
    return _LOGPROB_BYTES * (1 + top)


class ChoiceSink:
    """The engine's sink of one choice.

    Logprobs are told of content alone. A token's text may be held back until later tokens settle
    it, so the logprobs of tokens wait until the next content. A control token, and text that is no
    content, lets those that wait go: they belonged to a header, to reasoning or to a call.

    Attributes:
        generated: tokens so far.
        reasoned: those of them that were reasoning, headers included.
    """

    def __init__(self, place: int, choice: Choice, mailbox: Mailbox[AnswerEvent]) -> None:
        self.generated = self.reasoned = 0
        self._place, self._mailbox = place, mailbox
        self._reader, self._control = choice.reader, choice.control
        self._untold: list[TokenLogprobs] = []
        self._unsettled = 0  # tokens that no delta has come of yet
        self._failure: ApiError | None = None

    def token(self, token: int, logprobs: TokenLogprobs | None) -> bool:
        """Take a token; True ends the choice."""
        self.generated += 1
        self._unsettled += 1
        if token in self._control:
            self._untold.clear()
        elif logprobs is not None:
            self._untold.append(logprobs)
        try:
            deltas = self._reader.push(token)
            done = self._reader.done
        except BaseException:  # a defect of ours or a panic of Rust's: others' answers go on
            logger.exception("the reader of an answer failed")
            self._failure = ApiError(500, "the answer could not be read", SERVER)
            return True
        if self._reader.problem is not None:
            return True
        if deltas and not self._put(deltas):
            message = "the answer was cancelled: the client reads it too slowly"
            self._failure = ApiError(503, message, SERVER, "slow_reader")
            return True
        return done

    def finish(self, reason: FinishReason, message: str) -> None:
        """Take the end."""
        if self._failure is None and reason == "error":
            self._failure = ApiError(500, message or "the engine failed", SERVER, "engine_error")
        if self._failure is None and reason == "cancelled":
            self._failure = unavailable(message or "the answer was cancelled: the server stops")
        if self._failure is None:
            try:
                self._put(self._reader.finish())
            except BaseException:  # as above
                logger.exception("the reader of an answer failed")
                self._failure = ApiError(500, "the answer could not be read", SERVER)
        if self._failure is None and self._reader.problem is not None:
            self._failure = ApiError(500, str(self._reader.problem), SERVER)
        if self._failure is not None:
            event = AnswerEvent(self._place, failure=self._failure)
        else:
            assert reason in ("stop", "length")
            event = AnswerEvent(self._place, finish_reason=reason)
        self._mailbox.put(event, 0, self._place)

    def _put(self, deltas: list[AnswerDelta]) -> bool:
        """Leave deltas in the mailbox; False if the client reads too slowly."""
        if not deltas:
            return True
        logprobs: tuple[TokenLogprobs, ...] = ()
        if any(delta.kind == "content" for delta in deltas):
            logprobs = tuple(self._untold)
        self._untold.clear()
        if deltas[-1].kind == "reasoning":
            self.reasoned += self._unsettled
        self._unsettled = 0
        event = AnswerEvent(self._place, tuple(deltas), logprobs)
        return self._mailbox.put(event, event.size, self._place, _joined)


def _joined(earlier: AnswerEvent, later: AnswerEvent) -> AnswerEvent | None:
    """Return one event of two that are pieces of the same text, None for others.

    So what waits for a slow client is hardly more than its text.
    """
    if earlier.logprobs or later.logprobs or len(earlier.deltas) != 1 or len(later.deltas) != 1:
        return None
    (first,), (second,) = earlier.deltas, later.deltas
    is_one = (first.kind, first.call) == (second.kind, second.call) and not second.id
    if not is_one or len(first.text) > _LONGEST_JOINED:
        return None
    return replace(earlier, deltas=(replace(first, text=first.text + second.text),))
