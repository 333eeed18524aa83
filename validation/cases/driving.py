"""What every drive of a session works on, and the plain ways to drive it: each returns the logits
that the session gave and those of the reference.

Legend: T positions, V vocabulary, W the window (or a stand-in if no layer slides; see `sizes`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.cases.driven import Driven, NotAvailableError
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.metrics import Logits
from gptoss_onnx.validation.judging.scored import Scored

OURS = "it tries the caches and threads of a session of ours, which this is not"
MOST_LOGITS = 2**24  # numbers that are compared of one sequence; judging them takes some copies

# Logits of the session, float32 (T, V), and of the reference at the same positions.
Pair = tuple[Logits, Scored]


@dataclass(frozen=True)
class Drive:
    """A session, the reference, and the sizes to use.

    `sequence` is one long token sequence that goes beyond the window. Most drives share it, so that
    the reference runs it once.
    """

    session: Driven
    expected: Expected
    sizes: Sizes
    sequence: list[int]

    @property
    def own(self) -> Session:
        """The session, if it is one of a package of ours, whose caches and options a case may use;
        raises NotAvailableError for what another program made or runs.
        """
        if not isinstance(self.session, Session):
            raise NotAvailableError(OURS)
        return self.session

    def rows(self, count: int) -> list[list[int]]:
        """Return `count` sequences as long as the shared one, which is the first: the same ones to
        every case.
        """
        length = len(self.sequence)
        others = (self.expected.named(f"row {row}", length) for row in range(1, count))
        return [self.sequence, *others]

    def compared(self, length: int) -> NDArray[np.int64]:
        """Return the positions to compare of a sequence of `length` tokens: all of them, or, where
        the vocabulary is large, some at equal distances and the last.
        """
        most = max(1, MOST_LOGITS // self.session.vocab)
        if length <= most:
            return np.arange(length)
        return length - 1 - (np.arange(most)[::-1] * length) // most

    def compared_in(self, length: int, begin: int, end: int) -> NDArray[np.int64]:
        """Return those of `compared(length)` that lie from `begin` to before `end`, counted from
        `begin`.
        """
        places = self.compared(length)
        return places[(begin <= places) & (places < end)] - begin

    def in_chunks(self, size: int) -> Pair:
        """Run the shared sequence in calls of `size` tokens."""
        places = self.compared(len(self.sequence))
        found = self.session.score(self.sequence, chunk=size, positions=places)
        return found, self.expected.score(self.sequence)[places]

    def in_calls(self, tokens: Sequence[int], sizes: Sequence[int]) -> Pair:
        """Run a sequence in calls of these sizes, which need not reach its end."""
        length, begin, found, places = len(tokens), 0, [], []
        with self.session.new_cache(1, length, chunk=max(sizes)) as cache:
            for size in sizes:
                piece = tokens[begin : begin + size]
                wanted = self.compared_in(length, begin, begin + len(piece))
                logits = self.session.forward([piece], cache, logit_positions=wanted[None])
                found.append(logits[0])
                places.append(begin + wanted)
                begin += size
        return np.concatenate(found), self.expected.score(tokens)[np.concatenate(places)]


class DriveFailedError(Exception):
    """What a session did wrong that its logits do not show."""


def joined(pairs: Sequence[Pair]) -> Pair:
    """Return all positions of all pairs, one after the other."""
    return (
        np.concatenate([found for found, _ in pairs]),
        Scored.join([expected for _, expected in pairs]),
    )


def prefill(drive: Drive) -> Pair:
    """All positions in one call."""
    return drive.in_chunks(len(drive.sequence))


def decode(drive: Drive) -> Pair:
    """A prompt, then one token a call to the end of the sequence, beyond the window."""
    tokens, prompt, found = drive.sequence, drive.sizes.prompt, []
    places = [place for place in drive.compared(len(tokens)) if place >= prompt - 1]
    none = np.zeros((1, 0), np.int64)
    with drive.session.new_cache(1, len(tokens)) as cache:
        for begin, end in pairwise([0, *range(prompt, len(tokens) + 1)]):
            wanted = None if end - 1 in places else none  # None: the last one
            piece = [tokens[begin:end]]
            found.append(drive.session.forward(piece, cache, logit_positions=wanted)[0])
    return np.concatenate(found), drive.expected.score(tokens)[places]


def empty_past(drive: Drive) -> Pair:
    """The smallest call: one token, nothing cached."""
    token = drive.sequence[:1]
    with drive.session.new_cache(1, 1) as cache:
        return drive.session.forward([token], cache)[0], drive.expected.score(token)
