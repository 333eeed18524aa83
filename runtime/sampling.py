"""Sampling: how the next token is chosen from a row of logits, and what ends a text.

The steps and their order are those of Hugging Face transformers' logits processors (and of vLLM):
repetition penalty, temperature, top-k, top-p, min-p. V vocabulary.

Numbers, the same in every language of this project: logits become float64, and everything is
computed in float64. After the penalty the largest score is subtracted, and then the scores are
divided by the temperature. So the largest score is exactly 0 whatever the settings are, and nothing
overflows: a score that becomes −inf has probability 0.
"""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime.arguments import integer, number, shown

Scores = NDArray[np.float64]
NUCLEUS_BLOCK = 1024  # tokens sorted for top-p before the whole vocabulary is
_LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True)
class Sampling:
    """Settings of one generation; the defaults choose greedily.

    Numbers may be Python's or numpy's, and are kept as Python's. Raises InputError for a value of
    the wrong type or out of its range.

    Attributes:
        temperature: 0 takes the most probable token; else logits are divided by it.
        top_k: keep the k largest logits (and what ties with the last); 0 keeps all.
        top_p: keep the fewest most probable tokens whose probabilities reach this sum; 1 keeps all.
        min_p: keep tokens at least this fraction as probable as the most probable one; 0 keeps all.
        repetition_penalty: divides positive and multiplies negative logits of tokens that are
            already in the row: in what its cache holds, the prompt and the continuation. 1 turns it
            off.
        seed: of the random numbers; each row of a batch has its own sequence. None draws fresh
            ones.
        stop_tokens: ids that end a text, the id itself being the last one generated; None means the
            package's.
        stop: strings that end a text; they are found across token boundaries and cut off the text.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_tokens: tuple[int, ...] | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        penalty = "a finite number above 0"
        checked: dict[str, Any] = {
            "temperature": _number("temperature", self.temperature, "a finite number, 0 or more"),
            "top_k": integer("top_k", self.top_k, 0),
            "top_p": _number("top_p", self.top_p, "above 0, at most 1", most=1, zero=False),
            "min_p": _number("min_p", self.min_p, "0 to 1", most=1),
            "repetition_penalty": _number(
                "repetition_penalty", self.repetition_penalty, penalty, zero=False
            ),
            "seed": None if self.seed is None else integer("seed", self.seed, 0),
            "stop": tuple(_text(text) for text in _several("stop", self.stop, "strings")),
        }
        if self.stop_tokens is not None:
            tokens = _several("stop_tokens", self.stop_tokens, "token ids")
            checked["stop_tokens"] = tuple(integer("stop_tokens", token, 0) for token in tokens)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def chosen(sampling: object) -> Sampling:
    """Return the settings that a caller has given, the default ones for None; raises InputError."""
    if sampling is not None and not isinstance(sampling, Sampling):
        raise InputError(f"sampling: found {type(sampling).__name__}, expected Sampling or None")
    return Sampling() if sampling is None else sampling


class RowSampler:
    """Chooses the tokens of one row of a batch.

    `row` gives each row its own random numbers, so a row draws alike whatever its neighbours do.
    What the row has said is not kept here: it belongs to the sequence, see `KVCache.tokens`.
    """

    def __init__(self, sampling: Sampling, row: int) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(
            None if sampling.seed is None else (sampling.seed, row)
        )

    def choose(self, logits: NDArray[np.float32], seen: NDArray[np.integer[Any]]) -> int:
        """Return the next token from logits (V), when the row holds the tokens `seen` (any number,
        any order).

        Raises PackageError when the largest logit is not finite: NaN anywhere, infinity, or all
        −infinity.
        """
        top = float(logits.max())
        if not math.isfinite(top):
            raise PackageError(
                f"logits: the largest is {top}, expected a finite number; run gptoss-onnx validate "
                "on it"
            )
        sampling = self._sampling
        if sampling.temperature == 0:
            return int(penalize(logits, seen, sampling.repetition_penalty).argmax())
        tokens, scores = candidates(logits, seen, sampling)
        # Inverse transform sampling: the same seed draws the same tokens on every machine up to
        # rounding.
        sums = np.cumsum(np.exp(scores))
        index = np.searchsorted(sums, self._random.random() * sums[-1], side="right")
        last = np.searchsorted(sums, sums[-1])  # those after it have probability 0
        return int(tokens[min(index, last)])


def penalize(
    logits: NDArray[np.float32], seen: NDArray[np.integer[Any]], penalty: float
) -> NDArray[Any]:
    """Return logits (V) with the repetition penalty on the tokens `seen`, in float64; without a
    penalty, as they are.

    A score that leaves the range of float64 becomes its largest or least number, so that none is
    infinite.
    """
    if penalty == 1 or seen.size == 0:
        return logits
    found = logits[seen].astype(np.float64)
    with np.errstate(over="ignore"):
        changed = np.where(found < 0, found * penalty, found / penalty)
    scores = logits.astype(np.float64)
    scores[seen] = np.where(np.isfinite(found), np.clip(changed, -_LARGEST, _LARGEST), found)
    return scores


def candidates(
    logits: NDArray[np.float32], seen: NDArray[np.integer[Any]], sampling: Sampling
) -> tuple[NDArray[np.intp], Scores]:
    """Return the tokens (n) that may be drawn, in rising order, and their scores (n); temperature
    is above 0.

    The probability of a token is in proportion to exp(score); the largest score is 0. `seen` are
    the tokens that the row holds.
    """
    scores = penalize(logits, seen, sampling.repetition_penalty)
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
    probabilities = np.exp(scores)  # the largest score is 0
    probabilities /= probabilities.sum()
    # Sorting a vocabulary takes longer than a layer of the model; mostly a few hundred tokens hold
    # the nucleus.
    likely = np.arange(scores.size)
    tail = 0.0
    if scores.size > NUCLEUS_BLOCK:
        block = np.flatnonzero(scores >= _kth_largest(scores, NUCLEUS_BLOCK))
        rest = 1 - float(probabilities[block].sum())
        if rest <= 1 - top_p:
            likely, tail = block, rest
    backwards = likely[::-1]
    order = backwards[np.argsort(scores[backwards], kind="stable")]  # least probable first
    kept = tail + np.cumsum(probabilities[order]) > 1 - top_p
    kept[-1] = True  # the most probable one, whatever rounding says
    inside = np.zeros(scores.size, np.bool_)
    inside[order[kept]] = True
    return inside


def _number(
    name: str, value: object, expected: str, *, most: float = math.inf, zero: bool = True
) -> float:
    found = number(name, value, expected)
    if not 0 <= found <= most or (found == 0 and not zero):
        raise InputError(f"{name}: found {shown(value)}, expected {expected}")
    return found


def _several(name: str, values: object, what: str) -> list[Any]:
    """Return the items of a list, tuple, set or one-dimensional array; refuses a text."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return list(values.tolist())
    if not isinstance(values, (Sequence, Set)) or isinstance(values, (str, bytes)):
        raise InputError(f"{name}: found {shown(values)}, expected a list or tuple of {what}")
    return list(values)


def _text(text: object) -> str:
    if not isinstance(text, str) or text == "":
        raise InputError(f"stop: found {shown(text)}, expected strings that are not empty")
    return str(text)
