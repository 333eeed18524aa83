"""What every drive of a session works on, and the plain ways to drive it: each returns the logits
that the session gave and those of the reference.

Legend: T positions, V vocabulary, W the window (or a stand-in if no layer slides; see `sizes`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.cases.driven import Driven, NotAvailableError
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.judging.expected import Expected, Scored
from gptoss_onnx.validation.judging.metrics import Logits

OURS = "it tries the caches and threads of a session of ours, which this is not"
MOST_LOGITS = 2**25  # numbers that a case of many calls compares; judging them takes some copies


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

    def last(self, size: int, calls: int) -> np.ndarray:
        """Return the positions to compare of one call of `size` tokens, of a case that has `calls`:
        all of them, or the last ones where the vocabulary is large.
        """
        most = max(1, MOST_LOGITS // (calls * self.session.vocab))
        return np.arange(max(0, size - most), size)


class DriveFailedError(Exception):
    """What a session did wrong that its logits do not show."""


# Logits of the session, float32 (T, V), and of the reference at the same positions.
Pair = tuple[Logits, Scored]


def joined(pairs: Sequence[Pair]) -> Pair:
    """Return all positions of all pairs, one after the other."""
    return (
        np.concatenate([found for found, _ in pairs]),
        Scored.join([expected for _, expected in pairs]),
    )


def prefill(drive: Drive) -> Pair:
    """All positions in one call."""
    found = drive.session.score(drive.sequence, chunk=len(drive.sequence))
    return found, drive.expected.score(drive.sequence)


def decode(drive: Drive) -> Pair:
    """A prompt, then one token a call to the end of the sequence, beyond the window."""
    tokens, prompt = drive.sequence, drive.sizes.prompt
    with drive.session.new_cache(1, len(tokens)) as cache:
        found = [drive.session.forward([tokens[:prompt]], cache)[0]]
        found += [drive.session.forward([[token]], cache)[0] for token in tokens[prompt:]]
    return np.concatenate(found), drive.expected.score(tokens)[prompt - 1 :]


def empty_past(drive: Drive) -> Pair:
    """The smallest call: one token, nothing cached."""
    token = drive.sequence[:1]
    with drive.session.new_cache(1, 1) as cache:
        return drive.session.forward([token], cache)[0], drive.expected.score(token)
