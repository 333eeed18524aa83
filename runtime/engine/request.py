"""GenerationRequest: what an engine is asked for, and the two objects it calls while it answers.

V vocabulary.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.batch_sampling import TokenLogprobs
from gptoss_onnx.runtime.sampling import Sampling

FinishReason = Literal["stop", "length", "cancelled", "error"]


class Constraint(Protocol):
    """What the next token of one answer may be; one object a request, called by one thread."""

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Write −inf into logits (V), in place, where a token is not allowed next."""

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""


class Sink(Protocol):
    """Where one answer goes; the engine's thread calls it, so it must be quick and not raise.

    A sink that raises ends its own request with `error`, and no other.
    """

    def token(self, token: int, logprobs: TokenLogprobs | None) -> bool:
        """Take the next token; True ends the answer here, with reason `stop`."""

    def finish(self, reason: FinishReason, message: str) -> None:
        """Learn that the answer has ended, and for `error` why; called exactly once, always last.

        It may be called before any token, and during `Engine.close`, but never inside
        `Engine.submit`.
        """


@dataclass(frozen=True)
class GenerationRequest:
    """One answer to be generated.

    Attributes:
        tokens: the prompt, at least one token. An array of int64 takes the least time to submit.
        sampling: how tokens are chosen, and the tokens that end the answer (None: the package's).
            Stop texts are the sink's to find: an engine refuses them.
        max_new_tokens: tokens to generate at most.
        sink: where the answer goes.
        index: which of several choices of one prompt this is: its seed is `sampling.seed + index`.
        logprobs: how many of the most probable tokens to name beside the chosen one; None for no
            log-probabilities. They are the model's own: before bias, penalties, constraint and
            temperature.
        constraint: what the answer must obey, None for nothing.
        owner: who asks. Rows that were saved for one owner serve no other: they would tell what
            others have asked.
    """

    tokens: tuple[int, ...] | NDArray[np.int64]
    sampling: Sampling
    max_new_tokens: int
    sink: Sink
    index: int = 0
    logprobs: int | None = None
    constraint: Constraint | None = None
    owner: str = ""
