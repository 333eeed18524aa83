"""Scorer: how probable a package finds texts, in token ids.

A continuation's log-likelihood is the sum, over its tokens, of the logarithm of their probability
after all tokens before; see Gao et al. 2021, "A framework for few-shot language model evaluation".
Legend: V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.offered import REWINDING
from gptoss_onnx.runtime import PREFILL_CHUNK, KVCache, Session

MOST_LOGITS = 1 << 26  # numbers of one call: 256 MiB
Ids = Sequence[int]


@dataclass(frozen=True)
class Score:
    """The natural logarithm of a continuation's probability, and whether greedy choice gives it."""

    log_likelihood: float
    is_greedy: bool


class Scorer:
    """Scores continuations by a session.

    Contexts that follow each other and are equal, as those of a multiple-choice question, are run
    once. Prompts are not run in batches: on a CPU that saves nothing.

    Args:
        session: an open package.
        longest: the most tokens that a prediction may look at, itself not counted; None is what the
            model takes.

    Raises:
        InputError: `longest` is more than the model takes, or less than 1.
    """

    def __init__(self, session: Session, longest: int | None = None) -> None:
        most = session.manifest.longest
        self.longest = most if longest is None else longest
        if not 1 <= self.longest <= most:
            raise InputError(
                f"max_length: found {longest}, expected 1 to {most}, which the package takes"
            )
        self._session = session
        self._columns = max(1, min(PREFILL_CHUNK, MOST_LOGITS // session.vocab))

    def scores(self, pairs: Sequence[tuple[Ids, Ids]]) -> Iterator[Score]:
        """Yield the score of each pair of a context, one token or more, and its continuation.

        Where both together are too long, the beginning is left out: of the context, and of a
        continuation that alone is too long.
        """
        cut = [self._cut(context, continuation) for context, continuation in pairs]
        begin = 0
        while begin < len(cut):
            end = begin
            while end < len(cut) and cut[end][0] == cut[begin][0]:
                end += 1
            yield from self._after(cut[begin][0], [parts for _, parts in cut[begin:end]])
            begin = end

    def rolling(self, token_ids: Ids, prefix: int) -> float:
        """Return the log-likelihood of a whole text, which may be longer than the model takes.

        Each token is predicted once, the first one after the token `prefix`.
        """
        windows = list(rolling_windows(token_ids, prefix, self.longest))
        return sum(score.log_likelihood for score in self.scores(windows))

    def _cut(self, context: Ids, continuation: Ids) -> tuple[list[int], list[int]]:
        if not context:
            raise InputError("context: found none, expected one token or more")
        whole = [*context, *continuation][-(self.longest + 1) :]
        kept = min(len(continuation), len(whole) - 1)
        return whole[: len(whole) - kept], whole[len(whole) - kept :]

    def _after(self, context: list[int], continuations: list[list[int]]) -> Iterator[Score]:
        """Score continuations of one context."""
        most = max(map(len, continuations))
        rewinds = self._session.manifest.offers(REWINDING)
        shared = len(context) - 1  # the context's last token predicts the first one after it
        with self._session.new_cache(
            1, max(1, shared + most), reserve=most if rewinds else 0
        ) as cache:
            for continuation in continuations:
                if not continuation:
                    yield Score(0.0, True)
                    continue
                if not rewinds:
                    cache.reset()
                if shared and not cache.lengths[0]:
                    self._session.forward([context[:-1]], cache)
                yield self._score(cache, [context[-1], *continuation])
                if rewinds:
                    cache.rewind([shared])

    def _score(self, cache: KVCache, tokens: list[int]) -> Score:
        """Score all tokens but the first after what the cache holds; the last one is not run."""
        total, is_greedy = 0.0, True
        for begin in range(0, len(tokens) - 1, self._columns):
            inputs = tokens[begin : min(begin + self._columns, len(tokens) - 1)]
            wanted = np.array(tokens[begin + 1 : begin + 1 + len(inputs)])
            every = [range(len(inputs))]
            logits = self._session.forward([inputs], cache, logit_positions=every)[0]
            total += float(_log_probabilities(logits, wanted).sum())
            is_greedy &= bool((logits.argmax(-1) == wanted).all())
        return Score(total, is_greedy)


def rolling_windows(
    token_ids: Ids, prefix: int, longest: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield contexts and continuations that predict every token of a text once.

    The first window begins with `prefix`; each later one looks at `longest` tokens, so that the
    last, which has few tokens to predict, sees as much as the others.
    """
    tokens = [prefix, *token_ids]
    predicted = 0
    while predicted < len(token_ids):
        count = min(longest, len(token_ids) - predicted)
        end = predicted + count  # of what is predicted, in token_ids
        begin = max(0, end - longest)  # of what is looked at, in tokens
        yield tokens[begin : end + 1 - count], tokens[end + 1 - count : end + 1]
        predicted = end


def _log_probabilities(
    logits: NDArray[np.float32], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the logarithm of each wanted token's probability, from logits (T, V)."""
    found = logits[np.arange(len(wanted)), wanted].astype(np.float64)
    largest = logits.max(-1)
    sums = np.exp(logits - largest[:, None]).sum(-1, dtype=np.float64)
    return np.asarray(found - largest - np.log(sums))
