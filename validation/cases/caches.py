"""What a cache goes through: capacities, the last slot, rewinding, forks, growth, resets, turns."""

import numpy as np

from gptoss_onnx.errors import InputError
from gptoss_onnx.offered import REWINDING
from gptoss_onnx.runtime.cache_layout import slot_bytes
from gptoss_onnx.validation.cases.driving import Drive, DriveFailedError, Pair, joined
from gptoss_onnx.validation.cases.rows import Rows
from gptoss_onnx.validation.cases.sizes import RESERVE
from gptoss_onnx.validation.judging.scored import Scored

MOST_BYTES = 2**30  # of a cache that is made for one case
CAPACITIES = sorted({2**power + step for power in range(13) for step in (-1, 0, 1)} - {0})
TURN = 16  # tokens of a call where two caches take turns
PROMPT = 12  # tokens that run in each capacity, if it takes as many


def capacities(drive: Drive) -> Pair:
    """Caches of capacities around the powers of two up to 4096, which hold few tokens or are full,
    in a call of several and one of a token.
    """
    tried = [each for each in CAPACITIES if cache_bytes(drive, each) <= MOST_BYTES]
    pairs = []
    for capacity in tried:
        length = min(capacity, PROMPT, drive.sizes.length)
        with drive.own.new_cache(1, capacity) as cache:
            row = Rows(drive, cache, length)
            for count in (length - 1, 1):
                row.go_on([count])
        pairs.append(row.pair())
    return joined(pairs)


def cache_bytes(drive: Drive, capacity: int) -> int:
    """Return what a cache of one row takes, in bytes."""
    manifest, layout = drive.own.manifest, drive.own.contract.layout
    return sum(
        layout.slots(layer, 1, capacity, 0, 1) * slot_bytes(layer, manifest.kv_dtype)
        for layer in manifest.cache
    )


def rewind(drive: Drive) -> Pair:
    """Tokens that prove wrong are taken back, again and again, down to the last position the
    reserve allows.
    """
    tokens, sizes = drive.sequence, drive.sizes
    count = min(min(sizes.window, RESERVE) + 1, sizes.longest - len(tokens))  # wrong ones
    reserve = max(0, count - 1)
    wrong = drive.expected.generator("wrong tokens")
    stride, found, kept = max(1, sizes.window // 2), [], []
    with drive.session.new_cache(1, len(tokens) + count, reserve=reserve) as cache:
        for begin in range(0, len(tokens), stride):
            piece = tokens[begin : begin + stride]
            found.append(drive.session.forward([piece], cache)[0])
            kept.append(begin + len(piece) - 1)
            tokens_taken_back = wrong.integers(drive.session.vocab, size=count)
            # the last call begins `reserve` after the right ones
            for taken_back in (tokens_taken_back[:-1], tokens_taken_back[-1:]):
                if taken_back.size:
                    drive.session.forward(taken_back[None], cache)
            cache.rewind([begin + len(piece)])
    return np.concatenate(found), drive.expected.score(tokens)[kept]


def full(drive: Drive) -> Pair:
    """Every slot is used, one token more is refused, and the cache still serves: with the last
    token taken back where the target rewinds, else after a reset.
    """
    session, tokens = drive.own, drive.sequence
    expected = drive.expected.score(tokens)
    kept = drive.compared(len(tokens))
    begin = len(tokens) - 1 if session.manifest.offers(REWINDING) else 0
    with session.new_cache(1, len(tokens)) as cache:
        found = [session.forward([tokens], cache, logit_positions=kept[None])[0]]
        try:
            session.forward([tokens[:1]], cache)
        except InputError:
            pass
        else:
            raise DriveFailedError("a full cache took one token more, expected a refusal")
        cache.rewind(begin)
        found.append(session.forward([tokens[begin:]], cache)[0])
    return np.concatenate(found), Scored.join([expected[kept], expected[-1:]])


def forked(drive: Drive) -> Pair:
    """A cache and its fork: while one goes on, the other runs wrong tokens in between."""
    length, pairs = drive.sizes.length, []
    half, later = (length + 1) // 2, (3 * length + 3) // 4
    wrong = drive.rows(2)[1][half:]
    for fork_goes_wrong in (True, False):
        with drive.own.new_cache(1, length) as cache:
            row = Rows(drive, cache, length)
            row.go_on([half])
            with cache.fork() as twin:
                row.cache, other = (cache, twin) if fork_goes_wrong else (twin, cache)
                row.go_on([later - half])
                if wrong:
                    drive.session.forward([wrong], other)
                row.go_on([length - later])
        pairs.append(row.pair())
    return joined(pairs)


def grown(drive: Drive) -> Pair:
    """A cache that is full grows, twice."""
    length = drive.sizes.length
    ends = [max(1, length // 4), max(1, length // 2), length]
    with drive.own.new_cache(1, ends[0]) as cache:
        row = Rows(drive, cache, length)
        for end in ends:
            cache.grow(end)
            row.go_on([end - int(cache.lengths[0])])
    return row.pair()


def reset(drive: Drive) -> Pair:
    """A cache that another sequence has filled is reset and used again."""
    length, pairs = drive.sizes.length, []
    with drive.own.new_cache(1, length) as cache:
        for first in (1, 0):
            row = Rows(drive, cache, length, first)
            row.go_on([length])
            pairs.append(row.pair())
            cache.reset()
    return joined(pairs)


def in_turn(drive: Drive) -> Pair:
    """Two caches of one session take turns, in calls of `TURN` tokens."""
    length = drive.sizes.length
    with (
        drive.own.new_cache(1, length) as first,
        drive.own.new_cache(1, length + 7) as second,
    ):
        both = [Rows(drive, first, length), Rows(drive, second, length, 1)]
        for _ in range(0, length, TURN):
            for row in both:
                row.go_on([TURN])
    return joined([row.pair() for row in both])
