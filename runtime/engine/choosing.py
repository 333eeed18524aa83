"""Choose the next tokens of several entries from their logits.

A rows, V vocabulary.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime.batch_sampling import BatchSampler, TokenLogprobs, token_logprobs
from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.refusals import told

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The next token of one entry, or why there is none.

    Attributes:
        token: its id.
        logprobs: where the request wants them.
        error: one line; empty where there is a token.
    """

    token: int = -1
    logprobs: TokenLogprobs | None = None
    error: str = ""


def choose_tokens(
    logits: NDArray[np.float32], entries: Sequence[Entry], sampler: BatchSampler
) -> list[Choice]:
    """Return a choice for each entry from logits (A, V), which constraints change in place.

    An entry whose constraint raises, or whose largest logit is not finite, has no choice; it draws
    no random number, and the others are not concerned.
    """
    return [_choose(*each, sampler) for each in zip(logits, entries, strict=True)]


def _choose(logits: NDArray[np.float32], entry: Entry, sampler: BatchSampler) -> Choice:
    request = entry.request
    # OpenAI's are the model's own, before anything is done to the logits
    plain = logits.copy() if request.logprobs is not None and request.constraint else logits
    penalty = request.sampling.repetition_penalty
    try:
        if request.constraint is not None:
            request.constraint.mask(logits)
        seen = None if penalty == 1 else [entry.context]
        # row by row, so that a row without a choice leaves the others theirs
        (token,) = sampler.choose(logits[None], [entry.sampler], seen)
        if request.logprobs is None:
            return Choice(token)
        return Choice(token, token_logprobs(plain, token, request.logprobs))
    except GptOssError as error:  # logits that are not finite, or nothing that is allowed
        return Choice(error=told(error))
    except BaseException as error:  # the caller's own code, whose Rust may panic, which is none
        # of Exception: its request ends, and no other
        logger.exception("a constraint raised")
        return Choice(error=told(error))
