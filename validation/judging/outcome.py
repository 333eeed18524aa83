"""What a case found, and how logits are judged. Legend: T positions, V vocabulary."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.validation.judging.limits import OTHER_EXPERT, Limits
from gptoss_onnx.validation.judging.metrics import Difference, Logits, compare, kl_by_position
from gptoss_onnx.validation.judging.near_ties import NearTie
from gptoss_onnx.validation.judging.scored import Scored
from gptoss_onnx.validation.judging.settle import Run, settle

MOST_POSITIONS = 512  # whose errors an outcome keeps
MOST_TIES = 64  # that an outcome lists


@dataclass(frozen=True)
class Tie:
    """A position and layer at which a router of the reference chose by less than the error that is
    allowed: the margin between the last expert chosen and the next, in router logits, and in words
    which way the package went.
    """

    position: int
    layer: int
    margin: float
    decided: str


@dataclass(frozen=True)
class Outcome:
    """What a case found, whether that passes, and a note for people.

    `difference` is None if the case compares no logits. `passed` is None if the package's target
    does not offer what the case does, and the session refused it in the words of the note.
    `by_position` holds the largest absolute error of each position compared, or of as many equal
    runs of positions as are kept. `ties` are the near-ties of the reference's routers up to the
    last position compared, each as the package has decided it; those that it turned come first.
    `refused` says that the session refused something that it should do; `passed` is False then.
    """

    difference: Difference | None
    passed: bool | None
    note: str
    by_position: tuple[float, ...] = ()
    ties: tuple[Tie, ...] = ()
    refused: bool = False


def judge(found: Logits, expected: Scored, limits: Limits) -> Outcome:
    """Hold logits (T, V) to the reference's.

    If the limits hold single logits, as for all that computes in float32, the near-ties of routers
    are settled first (see `settle`), and every position is held to the reference with the choices
    that the package made, at the same limits.

    A lossy setting moves router logits by a hundredth and more, so that each sequence flips experts
    at many places, which no search can settle. It is judged by its distribution over all positions,
    with limits that allow for flips. Where a setting has limits that do not, as a float16 cache,
    the positions from the first near-tie on are held to `OTHER_EXPERT` instead.
    """
    difference = compare(found, expected.logits)
    by_position = errors_by_position(found, expected.logits)
    broken = _not_finite(found, expected.positions)
    if broken:
        return Outcome(difference, False, broken, by_position)
    if not math.isfinite(limits.max_abs):
        passed, note = _judge_distribution(found, expected, limits, difference)
        return Outcome(difference, passed, note, by_position, listed(expected, {}))
    logits, turned, runs = _settle(found, expected, limits)
    difference = compare(found, logits)
    passed = limits.hold(difference)
    return Outcome(
        difference,
        passed,
        _note(turned, runs, passed),
        errors_by_position(found, logits),
        listed(expected, turned),
    )


def errors_by_position(found: Logits, expected: Logits) -> tuple[float, ...]:
    """Return the largest absolute error of each position, infinite for what is not finite; of more
    than `MOST_POSITIONS`, the largest of each of so many equal runs.
    """
    with np.errstate(invalid="ignore"):
        errors = np.abs(found - expected).max(-1)
    errors = np.where(np.isfinite(errors), errors, np.inf)
    pieces = np.array_split(errors, min(len(errors), MOST_POSITIONS))
    return tuple(float(piece.max()) for piece in pieces)


def _judge_distribution(
    found: Logits, expected: Scored, limits: Limits, difference: Difference
) -> tuple[bool, str]:
    """Tell whether the positions are within the limits, with a note.

    As many as may have another favourite are flipped experts, whose KL can be anything; the mean is
    that of the others. Or else the positions before the first near-tie are within the limits, and
    those behind it within wider ones.
    """
    if limits.hold(difference):
        return True, ""
    kl = np.sort(kl_by_position(found, expected.logits))
    odd = min(int(limits.odd(len(kl))), len(kl) - 1)
    if limits.hold(replace(difference, kl=float(kl[: len(kl) - odd].mean()))):
        return True, f"without the {odd} positions that are off most, as flipped experts are"
    decided = expected.decided
    if decided.all():
        return False, ""
    wide = limits.wider(OTHER_EXPERT)
    passed = wide.hold(compare(found[~decided], expected.logits[~decided]))
    if decided.any():
        passed &= limits.hold(compare(found[decided], expected.logits[decided]))
    note = (
        f"{(~decided).sum()} of {len(decided)} positions come after a router that chose by a hair; "
        f"they are held to {wide}"
    )
    return passed, note


def _settle(
    found: Logits, expected: Scored, limits: Limits
) -> tuple[Logits, dict[int, tuple[NearTie, ...]], int]:
    """Return the reference's logits (T, V) with the choices of `found`, the ties turned by source,
    and how many further runs that took.
    """
    logits, turned, runs = expected.logits, {}, 0
    for owner, source in enumerate(expected.sources):
        rows = np.flatnonzero(expected.owners == owner)
        rows = rows[np.argsort(expected.positions[rows], kind="stable")]

        def fails(theirs: Logits, rows: NDArray[np.intp] = rows) -> NDArray[np.bool_]:
            return np.asarray(np.abs(found[rows] - theirs).max(-1) > limits.max_abs)

        if not rows.size or not fails(logits[rows]).any():
            continue
        settled = settle(source, expected.positions[rows].tolist(), fails, expected.runs - runs)
        runs += settled.runs
        if settled.turned:
            logits = logits.copy() if logits is expected.logits else logits
            logits[rows] = settled.logits
            turned[owner] = settled.turned
    return logits, turned, runs


def listed(expected: Scored, turned: Mapping[int, tuple[NearTie, ...]]) -> tuple[Tie, ...]:
    """Return the ties up to the last position of each source, those turned (by source) first."""
    flipped = [tie for ties in turned.values() for tie in ties]
    every = [*flipped, *_undisputed(expected, turned)]
    return tuple(Tie(tie.position, tie.layer, tie.margin, tie.decided) for tie in every[:MOST_TIES])


def _undisputed(expected: Scored, turned: Mapping[int, tuple[NearTie, ...]]) -> Iterator[NearTie]:
    """Yield the ties that went the reference's way, source by source."""
    for owner, source in enumerate(expected.sources):
        last = expected.positions[expected.owners == owner].max(initial=-1)
        run: Run = source(turned.get(owner, ()))
        yield from (tie for tie in run.ties if tie.position <= last)


def _note(turned: dict[int, tuple[NearTie, ...]], runs: int, passed: bool) -> str:
    ties = [tie for ties in turned.values() for tie in ties]
    if not runs:
        return ""
    if not ties:
        return f"no other choice of a near-tied router explains it ({runs} runs of the reference)"
    shown = "; ".join(map(str, ties[:3])) + (f"; and {len(ties) - 3} more" if ties[3:] else "")
    return shown if passed else f"it fails even with near-ties decided as it does: {shown}"


def _not_finite(found: Logits, positions: Sequence[int] | NDArray[np.int64]) -> str:
    """Return where the first logit lies that is not finite; empty if there is none."""
    bad = ~np.isfinite(found)
    if not bad.any():
        return ""
    row, token = (int(index) for index in np.argwhere(bad)[0])
    count = int(bad.any(-1).sum())
    return (
        f"logits: found {found[row, token]} for token {token} at position {positions[row]}, "
        f"expected finite numbers ({count} of {len(found)} positions have others)"
    )
