"""Candidates: which tokens may be drawn, and their scores: temperature, top-k, top-p and min-p.

n candidates of a vocabulary V.

Numbers, the same in every language of this project: everything is computed in float64. The largest
score is subtracted, and then the scores are divided by the temperature. So the largest score is
exactly 0 whatever the settings are, and nothing overflows: a score that becomes −inf has
probability 0.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gptoss_onnx.runtime.sampling import Sampling

Scores = NDArray[np.float64]
_BINS = 4096  # of scores for top-p; the first holds all that are below _LOWEST
_LOWEST = -32.0


def candidates(scores: NDArray[Any], sampling: "Sampling") -> tuple[NDArray[np.intp], Scores]:
    """Return the tokens (n) that may be drawn, in rising order, and their scores (n); temperature
    is above 0.

    `scores` (V), float32 or float64, are logits with bias and penalties. The probability of a token
    is in proportion to exp(score); the largest score is 0.
    """
    top = last = float(scores.max())
    cut = 0 < sampling.top_k < scores.size
    if cut:  # what follows keeps the order
        last = _kth_largest(scores, sampling.top_k)
    with np.errstate(over="ignore"):
        scores = scores.astype(np.float64)
        scores -= top
        scores /= sampling.temperature
        least = float(np.float64(last - top) / sampling.temperature) if cut else -math.inf
    # one cut for both, since no top-p comes between them
    if sampling.top_p == 1 and sampling.min_p > 0:
        least = max(least, math.log(sampling.min_p))
    tokens, scores = _kept(scores, (scores >= least) & (scores > -np.inf))
    if sampling.top_p < 1:
        places, scores = _kept(scores, _in_nucleus(scores, sampling.top_p))
        tokens = tokens[places]
    if sampling.min_p > 0:
        # The largest score is 0: p ≥ min_p · p_max, in logarithms.
        places, scores = _kept(scores, scores >= math.log(sampling.min_p))
        tokens = tokens[places]
    return tokens, scores


def _kth_largest(scores: NDArray[Any], k: int) -> float:
    """Return the k-th largest of float32 or float64 scores (V); float32 is sorted in two thirds of
    the time.
    """
    with np.errstate(over="ignore"):
        rounded = scores.astype(np.float32, copy=False)
    kth = np.partition(rounded, -k)[-k]
    if scores.dtype == np.float32:
        return float(kth)
    # rounding keeps the order, so the k largest are among these
    near = scores[np.flatnonzero(rounded >= kth)]
    return float(np.partition(near, -k)[-k])


def _kept(scores: Scores, keep: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Scores]:
    """Return the places where `keep` is true, and the scores there."""
    if keep.all():  # gathering a whole vocabulary takes far longer than to see that it stays
        return np.arange(scores.size), scores
    places = np.flatnonzero(keep)
    return places, scores[places]


def _in_nucleus(scores: Scores, top_p: float) -> NDArray[np.bool_]:
    """Return which of the candidates (n) are among the fewest most probable ones that reach `top_p`
    together.

    A token is out when it and all less probable ones together have at most 1 − top_p. Of equally
    probable tokens the first is the more probable.
    """
    # Not divided by their sum, which would round each: equal ones then add up exactly.
    weights = np.exp(scores)  # the largest score is 0
    limit = (1 - top_p) * weights.sum()
    # Sorting a vocabulary takes longer than a layer of the model: only those are sorted that share
    # a bin of scores with the last one inside.
    places = np.maximum(scores, _LOWEST)  # first, so that nothing overflows
    places -= _LOWEST
    places *= _BINS / -_LOWEST
    bins = np.minimum(places, _BINS - 1).astype(np.intp)
    sums = np.cumsum(np.bincount(bins, weights, _BINS))
    edge = min(int(np.searchsorted(sums, limit, side="right")), _BINS - 1)
    tail = sums[edge - 1] if edge > 0 else 0.0
    backwards = np.flatnonzero(bins == edge)[::-1]
    order = backwards[np.argsort(scores[backwards], kind="stable")]  # least probable first
    kept = tail + np.cumsum(weights[order]) > limit
    kept[-1] = True  # the most probable one, whatever rounding says
    inside = bins > edge
    inside[order[kept]] = True
    return inside
