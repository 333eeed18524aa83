"""Rejection sampling: a token that was drawn from the draft's probabilities becomes one that is
drawn from the model's.

Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding" (2023): a
token x drawn from q is taken with probability min(1, p(x)/q(x)); otherwise another one is drawn
from max(0, p − q). What results has the probabilities p.

A guess that was not drawn is the case of q = 1 for one token. There the model's own draw does the
same, with the same random numbers as without a guess: it is compared, and nothing is rejected.

V vocabulary, n candidates.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime.candidates import candidates
from gptoss_onnx.runtime.sampling import RowSampler, pick
from gptoss_onnx.runtime.speculation.guess import Drawn

Seen = NDArray[np.integer[Any]]


def drawn_token(
    sampler: RowSampler, logits: NDArray[np.float32], seen: Seen
) -> tuple[int, Drawn | None]:
    """Choose a token from logits (V) as `RowSampler.choose`, and say what it was drawn from; None
    where the most probable one is taken.
    """
    if sampler.sampling.temperature == 0:
        return sampler.choose(logits, seen), None
    drawn = _probabilities(sampler, logits, seen)
    token = pick(*drawn, sampler.uniform())
    sampler.count(token)
    return token, drawn


def judged_token(
    sampler: RowSampler, logits: NDArray[np.float32], seen: Seen, guess: int, drawn: Drawn
) -> int:
    """Return `guess`, which was drawn from `drawn`, or another token: distributed as what
    `RowSampler.choose` draws from logits (V). Temperature is above 0.
    """
    tokens, shares = _probabilities(sampler, logits, seen)
    theirs = _aligned(drawn, tokens)
    place = int(np.searchsorted(tokens, guess))
    is_candidate = place < tokens.size and tokens[place] == guess
    token = guess
    if not is_candidate or sampler.uniform() * theirs[place] >= shares[place]:
        rest = np.maximum(shares - theirs, 0)
        # all 0 where p is q, but for rounding: then nothing is left to prefer
        token = pick(tokens, rest if rest.any() else shares, sampler.uniform())
    sampler.count(token)
    return token


def _probabilities(sampler: RowSampler, logits: NDArray[np.float32], seen: Seen) -> Drawn:
    tokens, scores = candidates(sampler.scores(logits, seen), sampler.sampling)
    weights = np.exp(scores)
    return Drawn(tokens, weights / weights.sum())


def _aligned(drawn: Drawn, tokens: Seen) -> NDArray[np.float64]:
    """Return the probabilities that `drawn` gives to `tokens` (n), rising."""
    places = np.minimum(np.searchsorted(drawn.tokens, tokens), drawn.tokens.size - 1)
    return np.where(drawn.tokens[places] == tokens, drawn.shares[places], 0)
