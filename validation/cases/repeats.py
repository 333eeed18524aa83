"""The same again: a second run gives the same bits, another number of threads the same logits, and
what lies in slots that nobody has written changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gptoss_onnx.offered import RAGGED
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.cases.buffers import fill, first_not_finite
from gptoss_onnx.validation.cases.driven import Driven
from gptoss_onnx.validation.cases.driving import Drive, DriveFailedError, Pair, joined
from gptoss_onnx.validation.cases.rows import Rows

STEPS = 3  # tokens that are decoded one by one
# Bodies multiply what nobody sees by zero, so it must be finite, and small enough for float16.
STALE = 1e4


def repeated(drive: Drive) -> Pair:
    """Two runs in caches of their own."""
    (first, expected), (second, _) = (_run(drive, drive.session) for _ in range(2))
    if not np.array_equal(first, second, equal_nan=True):
        worst = np.abs(first - second).max()
        raise DriveFailedError(f"two equal runs differ by up to {worst:.1e}, expected equal bits")
    return first, expected


def other_threads(counts: Sequence[int]) -> Callable[[Drive], Pair]:
    """Return a drive of sessions that have so many threads."""

    def run(drive: Drive) -> Pair:
        session, pairs = drive.own, []
        kernels = "auto" if session.kernels == "contrib" else session.kernels
        for threads in counts:
            with Session.open(
                session.package.folder, kernels, session.activations, session.provider, threads
            ) as other:
                pairs.append(_run(drive, other))
        return joined(pairs)

    return run


def stale_slots(drive: Drive) -> Pair:
    """Buffers full of large numbers before the first token, and of NaN for native kernels, which
    read no slot that no token has written. At the end nothing is there but what was, and finite
    numbers.
    """
    return _in_turns(drive, np.nan if drive.own.kernels == "native" else STALE)


def finite_caches(drive: Drive) -> Pair:
    """Buffers full of zeros hold finite numbers at the end, padding and all."""
    return _in_turns(drive, 0.0)


def _in_turns(drive: Drive, before: float) -> Pair:
    """Run three rows that take turns, or one where the target runs only equal ones, in buffers that
    are full of one number.
    """
    length = drive.sizes.length
    batch = 3 if drive.own.manifest.offers(RAGGED) else 1
    with drive.own.new_cache(batch, length) as cache:
        fill(cache, before)
        rows = Rows(drive, cache, length)
        for new in ([5, 0, 1], [1, 7, 0], [length // 2] * 3, [length] * 3):
            rows.go_on(new[:batch])
        broken = first_not_finite(cache, before)
    if broken is not None:
        raise DriveFailedError(broken)
    return rows.pair()


def _run(drive: Drive, session: Driven) -> Pair:
    """Run most of the sequence in one call, the rest token by token."""
    length = drive.sizes.length
    steps = min(STEPS, length - 1)
    with session.new_cache(1, length) as cache:
        row = Rows(replace(drive, session=session), cache, length)
        for count in (length - steps, *[1] * steps):
            row.go_on([count])
    return row.pair()
