"""Sampling: how the next token is chosen from a row of logits, and what ends a text.

The steps and their order are those of Hugging Face transformers' logits processors (and of vLLM): repetition
penalty, temperature, top-k, top-p, min-p. V vocabulary.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, PackageError

Logits = NDArray[np.float32]
NUCLEUS_BLOCK = 1024  # tokens sorted for top-p before the whole vocabulary is


@dataclass(frozen=True)
class Sampling:
    """Settings of one generation; the defaults choose greedily.

    Attributes:
        temperature: 0 takes the most probable token; else logits are divided by it.
        top_k: keep the k largest logits (and what ties with the last); 0 keeps all.
        top_p: keep the fewest most probable tokens whose probabilities reach this sum; 1 keeps all.
        min_p: keep tokens at least this fraction as probable as the most probable one; 0 keeps all.
        repetition_penalty: divides positive and multiplies negative logits of tokens already in the prompt or
            the continuation; 1 is none.
        seed: of the random numbers; each row of a batch has its own sequence. None draws fresh ones.
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
        if isinstance(self.stop, str):
            raise InputError(f"stop: found the string {self.stop!r}, expected a tuple of strings")
        # Lists are welcome; the frozen copy is a tuple.
        object.__setattr__(self, "stop", tuple(self.stop))
        if self.stop_tokens is not None:
            object.__setattr__(self, "stop_tokens", tuple(self.stop_tokens))
        _expect("temperature", self.temperature, 0 <= self.temperature < math.inf, "a finite number, 0 or more")
        _expect("top_k", self.top_k, _is_count(self.top_k), "an integer, 0 (off) or more")
        _expect("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        _expect("min_p", self.min_p, 0 <= self.min_p <= 1, "0 to 1")
        penalty = self.repetition_penalty
        _expect("repetition_penalty", penalty, 0 < penalty < math.inf, "a finite number above 0")
        _expect("seed", self.seed, self.seed is None or _is_count(self.seed), "an integer, 0 or more, or None")
        for token in self.stop_tokens or ():
            _expect("stop_tokens", token, _is_count(token), "token ids, 0 or more")
        for text in self.stop:
            _expect("stop", text, isinstance(text, str) and text != "", "strings that are not empty")


class RowSampler:
    """Chooses the tokens of one row, remembering what the row has said.

    `seen` are the tokens of the prompt, for the repetition penalty; `row` gives each row of a batch its own
    random numbers, so a row draws alike whatever its neighbours do.
    """

    def __init__(self, sampling: Sampling, seen: NDArray[np.int64], row: int, vocab: int) -> None:
        self._sampling = sampling
        self._seen = np.zeros(vocab, np.bool_)
        self._seen[seen] = True
        self._random = np.random.default_rng(None if sampling.seed is None else (sampling.seed, row))

    def choose(self, logits: Logits) -> int:
        """Return the next token from logits (V) and remember it; raises PackageError when none is finite."""
        top = float(logits.max())
        if not math.isfinite(top):
            raise PackageError(
                f"logits: the largest is {top}, expected a finite number; run gptoss-onnx validate on it"
            )
        scores = penalize(logits, self._seen, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            token = int(scores.argmax())
        else:
            scores = restrict(scores, self._sampling)
            candidates = np.flatnonzero(scores > -np.inf)
            # Inverse transform sampling: the same seed draws the same tokens on every machine up to rounding.
            sums = np.cumsum(_softmax(scores[candidates]))
            index = np.searchsorted(sums, self._random.random() * sums[-1], side="right")
            token = int(candidates[min(int(index), candidates.size - 1)])
        self._seen[token] = True
        return token


def penalize(logits: Logits, seen: NDArray[np.bool_], penalty: float) -> Logits:
    """Return logits (V) with the repetition penalty on the tokens marked in `seen` (V)."""
    if penalty == 1:
        return logits
    scaled = np.where(logits < 0, logits * np.float32(penalty), logits / np.float32(penalty))
    return np.where(seen, scaled, logits)


def restrict(logits: Logits, sampling: Sampling) -> Logits:
    """Return logits (V) after temperature, top-k, top-p and min-p; -inf marks what is left out."""
    scores = logits / np.float32(sampling.temperature)
    if 0 < sampling.top_k < scores.size:
        least = np.partition(scores, -sampling.top_k)[-sampling.top_k]
        scores = np.where(scores < least, -np.inf, scores)
    if sampling.top_p < 1:
        scores = np.where(_in_nucleus(scores, sampling.top_p), scores, -np.inf)
    if sampling.min_p > 0:
        # p < min_p · p_max, in logarithms
        scores = np.where(scores < scores.max() + np.float32(math.log(sampling.min_p)), -np.inf, scores)
    return scores.astype(np.float32, copy=False)


def _in_nucleus(scores: Logits, top_p: float) -> NDArray[np.bool_]:
    """Return which tokens of (V) are among the fewest most probable ones that reach `top_p` together.

    A token is out when it and all less probable ones together have at most 1 − top_p.
    """
    candidates = np.flatnonzero(scores > -np.inf)
    probabilities = _softmax(scores[candidates])
    # Sorting a vocabulary takes longer than a layer of the model; mostly a few hundred tokens hold the nucleus.
    first = max(0, candidates.size - NUCLEUS_BLOCK)
    likely = np.argpartition(probabilities, first)[first:]
    tail = 1 - float(probabilities[likely].sum()) if first > 0 else 0.0
    if tail > 1 - top_p:
        likely, tail = np.arange(candidates.size), 0.0
    order = likely[np.argsort(probabilities[likely])]  # least probable first
    kept = tail + np.cumsum(probabilities[order]) > 1 - top_p
    kept[-1] = True  # the most probable one, whatever rounding says
    inside = np.zeros(scores.size, np.bool_)
    inside[candidates[order[kept]]] = True
    return inside


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    exponentials = np.exp(scores.astype(np.float64) - float(scores.max()))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum()
    return probabilities


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= 0


def _expect(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"{name}: found {value!r}, expected {expected}")
