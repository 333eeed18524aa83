"""Sampling: how the next token is chosen from a row of logits, and what ends a text.

The steps and their order are those of Hugging Face transformers' logits processors (and of vLLM):
logit bias, penalties, temperature, top-k, top-p, min-p; see `gptoss_onnx.runtime.candidates`. V
vocabulary.
"""

import copy
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime.arguments import integer, number, shown
from gptoss_onnx.runtime.candidates import candidates
from gptoss_onnx.runtime.penalties import Penalties

LARGEST_BIAS = 100.0  # OpenAI's limits, as of both penalties
LARGEST_PENALTY = 2.0
MOST_BIASES = 1024  # tokens


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
        logit_bias: what is added to the logits of tokens, −100 to 100 by token id.
        frequency_penalty: −2 to 2, taken off a token's logit for each time that it was generated.
        presence_penalty: −2 to 2, taken off a token's logit once it was generated.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop_tokens: tuple[int, ...] | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

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
            "logit_bias": _biases(self.logit_bias),
        }
        for name in ("frequency_penalty", "presence_penalty"):
            checked[name] = _between(name, getattr(self, name), LARGEST_PENALTY)
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
    What the row holds is not kept here: it belongs to the sequence, see `KVCache.tokens`. What was
    chosen is counted for the frequency and presence penalties.

    Attributes:
        sampling: the settings.
    """

    def __init__(self, sampling: Sampling, row: int) -> None:
        self.sampling = sampling
        self._penalties = Penalties(
            sampling.logit_bias,
            sampling.repetition_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
        seed = sampling.seed
        self._random = np.random.default_rng(None if seed is None else (seed, row))
        self._guesses = np.random.default_rng(None if seed is None else (seed, row, 1))

    def choose(self, logits: NDArray[np.float32], seen: NDArray[np.integer[Any]] | None) -> int:
        """Return the next token from logits (V), when the row holds the tokens `seen` (any number,
        any order; None will do where there is no repetition penalty).

        Raises PackageError when the largest logit is not finite: NaN anywhere, infinity, or all
        −infinity.
        """
        scores = self.scores(logits, seen)
        if self.sampling.temperature == 0:
            token = int(scores.argmax())
        else:
            tokens, scores = candidates(scores, self.sampling)
            # the same seed draws the same tokens on every machine, up to rounding
            token = pick(tokens, np.exp(scores), self.uniform())
        self.count(token)
        return token

    def scores(
        self, logits: NDArray[np.float32], seen: NDArray[np.integer[Any]] | None
    ) -> NDArray[Any]:
        """Return logits (V) with bias and penalties, in float64; as they are where there are none.

        Raises PackageError as `choose` does.
        """
        top = float(logits.max())
        if not math.isfinite(top):
            raise PackageError(
                f"logits: the largest is {top}, expected a finite number; run gptoss-onnx validate "
                "on it"
            )
        return self._penalties.apply(logits, seen)

    def uniform(self) -> float:
        """Return the row's next random number, 0 ≤ u < 1."""
        return float(self._random.random())

    def count(self, token: int) -> None:
        """Record that a token was chosen."""
        self._penalties.count(token)

    def guessing(self) -> Self:
        """Return a sampler of the same settings and counts, to draw guesses of this row's next
        tokens: it has random numbers of its own, and leaves this one's as they are.
        """
        twin = copy.copy(self)
        twin._penalties, twin._random = self._penalties.copy(), self._guesses
        return twin


def pick(tokens: NDArray[np.integer[Any]], weights: NDArray[np.float64], uniform: float) -> int:
    """Return the token that a random number, 0 ≤ u < 1, draws from tokens of these weights (n), in
    their order: inverse transform sampling. One of weight 0 is never drawn.
    """
    sums = np.cumsum(weights)
    index = np.searchsorted(sums, uniform * sums[-1], side="right")
    last = np.searchsorted(sums, sums[-1])  # those after it have probability 0
    return int(tokens[min(index, last)])


def check_vocabulary(sampling: Sampling, vocab: int) -> None:
    """Refuse settings that name a token beyond a vocabulary; raises InputError."""
    for name, tokens in (
        ("stop_tokens", sampling.stop_tokens or ()),
        ("logit_bias", sampling.logit_bias),
    ):
        for token in tokens:
            if token >= vocab:
                raise InputError(f"{name}: found {token}, expected 0 to {vocab - 1}")


def _number(
    name: str, value: object, expected: str, *, most: float = math.inf, zero: bool = True
) -> float:
    found = number(name, value, expected)
    if not 0 <= found <= most or (found == 0 and not zero):
        raise InputError(f"{name}: found {shown(value)}, expected {expected}")
    return found


def _between(name: str, value: object, most: float) -> float:
    expected = f"{-most:g} to {most:g}"
    found = number(name, value, expected)
    if not -most <= found <= most:
        raise InputError(f"{name}: found {shown(value)}, expected {expected}")
    return found


def _biases(values: object) -> dict[int, float]:
    if not isinstance(values, Mapping):
        raise InputError(f"logit_bias: found {shown(values)}, expected numbers by token id")
    if len(values) > MOST_BIASES:
        raise InputError(f"logit_bias: found {len(values)} tokens, expected at most {MOST_BIASES}")
    return {
        integer("logit_bias", token, 0): _between(f"logit_bias of {token}", bias, LARGEST_BIAS)
        for token, bias in values.items()
    }


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
