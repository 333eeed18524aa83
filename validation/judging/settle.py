"""Which near-ties of the reference's routers what is judged has decided the other way.

The reference runs again with a tie turned, and the run that fits is what logits are held to, at the
limits of every other position. So a flipped expert is neither an error nor an excuse for one.

Legend: T positions, V vocabulary.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.validation.judging.metrics import Logits
from gptoss_onnx.validation.judging.near_ties import NearTie

RUNS = 64  # of the reference for one case, beside the first


class LogitRows(Protocol):
    """Logits of a sequence, (T, V), which may be computed when they are asked for."""

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""

    def __getitem__(self, positions: Any, /) -> Logits:
        """Return the logits at some positions, float32 (T', V)."""


@dataclass(frozen=True)
class Run:
    """One run of the reference over a sequence: its logits, and the near-ties that were not forced,
    in order of position, then layer.
    """

    logits: LogitRows
    ties: tuple[NearTie, ...]


# Runs a sequence with some ties turned.
Source = Callable[[tuple[NearTie, ...]], Run]
# Tells, of logits (T', V) at the compared positions, which positions are off: boolean (T').
Fails = Callable[[Logits], NDArray[np.bool_]]


@dataclass(frozen=True)
class Settled:
    """The run that fits best: its logits (T', V) at the compared positions, the ties that it has
    turned, in order, and how many further runs it took to find it.
    """

    logits: Logits
    turned: tuple[NearTie, ...]
    runs: int


@dataclass(order=True, frozen=True)
class _Waiting:
    """A run still to be made. First come those whose parent held for longest, then those with the
    fewest ties turned, then the earliest tie.
    """

    before: int  # minus the first position at which the parent fails
    depth: int
    number: int
    turned: tuple[NearTie, ...] = field(compare=False)


def settle(source: Source, positions: Sequence[int], fails: Fails, runs: int) -> Settled:
    """Turn near-ties one by one until no position fails.

    A tie is tried if it comes at or before the first position that fails, unless its own position
    was compared and holds. If no choice fits within `runs`, the result is the one that holds for
    longest, and some positions fail.

    Args:
        source: the reference on one sequence.
        positions: of the sequence, those compared, ascending.
        fails: tells which of them fail, given the reference's logits there.
        runs: the most runs beside the first.
    """
    places = list(positions)

    def first_failing(logits: Logits) -> int | None:
        off = np.flatnonzero(fails(logits))
        return places[off[0]] if off.size else None

    def later(run: Run, turned: tuple[NearTie, ...], failing: int) -> Iterator[_Waiting]:
        held = {place for place in places if place < failing}
        for tie in run.ties:
            if tie.position <= failing and tie.position not in held:
                for choice in tie.choices():
                    yield _Waiting(-failing, len(turned), next(numbers), (*turned, choice))

    numbers = count()
    run = source(())
    best = Settled(run.logits[places], (), 0)
    failing = first_failing(best.logits)
    if failing is None:
        return best
    reached = failing
    waiting = list(later(run, (), failing))
    seen: set[frozenset[NearTie]] = set()
    made = 0
    while waiting and made < runs:
        turned = heapq.heappop(waiting).turned
        if frozenset(turned) in seen:
            continue
        seen.add(frozenset(turned))
        made += 1
        run = source(turned)
        logits = run.logits[places]
        failing = first_failing(logits)
        if failing is None:
            return Settled(logits, in_order(turned), made)
        if failing > reached:
            reached, best = failing, Settled(logits, in_order(turned), made)
        for child in later(run, turned, failing):
            heapq.heappush(waiting, child)
    return Settled(best.logits, best.turned, made)


def in_order(ties: Sequence[NearTie]) -> tuple[NearTie, ...]:
    """Return ties in order of position, then layer."""
    return tuple(sorted(ties, key=lambda tie: (tie.position, tie.layer)))
