"""Positions that no short sequence reaches, up to the last one that the model takes.

Legend: P tokens that the cache holds already.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gptoss_onnx.validation.cases.caches import MOST_BYTES, cache_bytes
from gptoss_onnx.validation.cases.driving import Drive, Pair, joined
from gptoss_onnx.validation.cases.late import held_layers, place, pretend, reference_caches
from gptoss_onnx.validation.judging.expected import Past
from gptoss_onnx.validation.judging.scored import Scored

LAST = 64  # positions that "long context" compares
TOGETHER, ALONE = 8, 8  # tokens of one call at a late position, then of calls of their own
NEW = TOGETHER + ALONE
KNOWN = 4096  # a position at which runtimes have been wrong


def late_lengths(drive: Drive, scaled_beyond: int | None) -> tuple[list[int], str]:
    """Return the lengths P after which short runs are tried, and a note on those that would take
    too much memory.

    The runs go beyond half of the context, the length from which a rotary embedding is scaled,
    4096, and a position drawn from the seed, and to the end of the context; or, where a cache as
    long as that takes more than `MOST_BYTES`, beyond the half of it that does not, or its half.
    """
    longest = drive.sizes.longest
    passed = {longest // 2, scaled_beyond or 0, KNOWN}
    passed.add(int(drive.expected.generator("late position").integers(longest)))
    wanted = {position - TOGETHER // 2 for position in passed} | {longest - NEW}
    wanted = {past for past in wanted if 0 < past <= longest - NEW}
    small = {past for past in wanted if _fits(drive, past)}
    large = sorted(wanted - small)
    if not large:
        return sorted(small), ""
    past = longest
    while past and not _fits(drive, past):
        past //= 2
    needed = cache_bytes(drive, large[0] + NEW) / 1e9
    note = (
        f"not judged after {', '.join(map(str, large))} tokens: a cache would take {needed:.1f} GB "
        f"and more, and a case takes {MOST_BYTES / 1e9:.1f} GB at most"
    )
    return sorted(small | ({past} - {0})), note


def _fits(drive: Drive, past: int) -> bool:
    return cache_bytes(drive, past + NEW) <= MOST_BYTES


def late(lengths: Sequence[int]) -> Callable[[Drive], Pair]:
    """Return a drive that goes on after P random keys and values, for each P: several tokens in a
    call, then one a call.
    """

    def run(drive: Drive) -> Pair:
        return joined([_rows(drive, [past]) for past in lengths])

    return run


def late_rows(lengths: Sequence[int]) -> Callable[[Drive], Pair]:
    """Return a drive of one batch whose rows are at all of these positions."""

    def run(drive: Drive) -> Pair:
        most = max(1, MOST_BYTES // cache_bytes(drive, max(lengths) + NEW))
        return _rows(drive, lengths[-most:])

    return run


def _rows(drive: Drive, lengths: Sequence[int]) -> Pair:
    session, manifest = drive.own, drive.own.manifest
    tokens, scores, found = [], [], []
    with session.new_cache(len(lengths), max(lengths) + NEW) as cache:
        pretend(cache, lengths)
        for row, past in enumerate(lengths):
            held = held_layers(
                manifest.cache, manifest.kv_dtype, past, drive.expected, drive.sequence
            )
            place(cache, row, held)
            made = partial(reference_caches, held, past)
            before = Past(past, manifest.kv_dtype, made)
            tokens.append(drive.expected.named(f"after {past}", NEW, before))
            scores.append(drive.expected.score(tokens[-1], before))
        wanted = np.tile(np.arange(TOGETHER), (len(lengths), 1))
        first = [row[:TOGETHER] for row in tokens]
        found.append(session.forward(first, cache, logit_positions=wanted))
        for step in range(TOGETHER, NEW):
            found.append(session.forward([[row[step]] for row in tokens], cache))
    return np.concatenate(np.concatenate(found, axis=1)), Scored.join(scores)


def last_of(length: int) -> Callable[[Drive], Pair]:
    """Return a drive that runs `length` tokens in one call and compares the last positions."""
    positions = np.arange(max(0, length - LAST), length)

    def run(drive: Drive) -> Pair:
        tokens = drive.expected.named("long context", length)
        with drive.session.new_cache(1, length) as cache:
            found = drive.session.forward([tokens], cache, logit_positions=[positions])[0]
        return found, drive.expected.score(tokens)[positions]

    return run
