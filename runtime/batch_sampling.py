"""BatchSampler: the next tokens of many rows at once; and log-probabilities of tokens.

A rows, V vocabulary. `RowSampler` is the definition of what is drawn; the native kernel draws the
same token from the same random number, but for rounding, in a small part of the time.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.choices import Kernels
from gptoss_onnx.custom_ops.token_draw import TokenDraw
from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.runtime.arguments import integer, shown
from gptoss_onnx.runtime.sampling import RowSampler

logger = logging.getLogger(__name__)

_BLOCK = 512  # tokens of which the largest logit is looked at first

Seen = Sequence[NDArray[np.integer[Any]]]


class TokenLogprobs(NamedTuple):
    """The log-probability of a token, and the most probable ones with theirs, best first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class BatchSampler:
    """Chooses a token for each row of a batch; one thread at a time.

    Attributes:
        kernel: `native` or `numpy`, what draws.
    """

    def __init__(self, kernels: Kernels = "auto") -> None:
        """Choose what draws: `native`, `portable` (numpy), or `auto`: native where the library is
        installed and works, which is logged, with the reason where it is not.

        Raises RuntimeUnavailable where the native library is asked for and does not work, and
        InputError for another value.
        """
        if kernels not in ("auto", "native", "portable"):
            raise InputError(f"kernels: found {shown(kernels)}, expected auto, native or portable")
        self._draw = None if kernels == "portable" else _native(kernels == "native")
        self.kernel: Literal["native", "numpy"] = "numpy" if self._draw is None else "native"

    def choose(
        self,
        logits: NDArray[np.float32],
        rows: Sequence[RowSampler],
        seen: Seen | None = None,
    ) -> list[int]:
        """Return the next token of each row.

        Args:
            logits: float32 (A, V); −infinity where a token is not allowed.
            rows: the samplers (A).
            seen: the tokens that each row holds (A), see `KVCache.row_tokens`; may be omitted if no
                row has a repetition penalty.

        Raises:
            InputError: the numbers of rows differ, or a row needs `seen`.
            PackageError: a row's largest logit is not finite.
        """
        many = len(rows)
        if logits.ndim != 2 or logits.shape[0] != many or (seen is not None and len(seen) != many):
            found = "" if seen is None else f" and the tokens of {len(seen)}"
            raise InputError(
                f"logits: found shape {logits.shape}{found}, expected ({many}, V) for {many} rows"
            )
        tokens: Seen | list[None] = [None] * many if seen is None else seen
        return [self._choose(*each) for each in zip(logits, rows, tokens, strict=True)]

    def _choose(
        self,
        logits: NDArray[np.float32],
        row: RowSampler,
        seen: NDArray[np.integer[Any]] | None,
    ) -> int:
        sampling = row.sampling
        if self._draw is None or sampling.temperature == 0:
            return row.choose(logits, seen)
        token = self._draw.draw(
            row.scores(logits, seen),
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            uniform=row.uniform(),
        )
        row.count(token)
        return token


def _native(is_asked_for: bool) -> TokenDraw | None:
    """Return the native kernel, or None where it does not work and is not asked for."""
    try:
        return TokenDraw.open()
    except RuntimeUnavailable as error:
        if is_asked_for:
            raise
        logger.warning("sampling: numpy, which is slower (%s)", error)
        return None


def token_logprobs(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprobs:
    """Return the log-probabilities of `token` and of the `top` most probable tokens.

    They are those of the logits (V) as given: natural logarithms at temperature 1. Of equal ones
    the lower id comes first. A token of logit −infinity has −infinity.

    Raises InputError for a token or a number out of range.
    """
    token = integer("token", token, 0, logits.size - 1)
    count = integer("top", top, 0, logits.size)
    largest = float(logits.max())
    scores = logits.astype(np.float64)
    scores -= largest
    total = float(np.log(np.exp(scores).sum()))

    def logprob(of: int) -> float:
        return float(scores[of]) - total

    best = _best(logits, count)
    return TokenLogprobs(token, logprob(token), tuple((each, logprob(each)) for each in best))


def _best(logits: NDArray[np.float32], count: int) -> list[int]:
    """Return the `count` tokens of the largest logits, largest first."""
    if count == 0:
        return []
    # The k-th largest of the blocks' largest is no more than the k-th largest of all.
    largest = np.maximum.reduceat(logits, np.arange(0, logits.size, _BLOCK))
    least = -np.inf if count > largest.size else np.partition(largest, -count)[-count]
    near = np.flatnonzero(logits >= least)
    order = np.argsort(-logits[near], kind="stable")[:count]
    return [int(each) for each in near[order]]
