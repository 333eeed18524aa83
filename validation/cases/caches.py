"""What a cache goes through: capacities, the last slot, rewinding, forks, growth, resets, turns."""

import numpy as np

from gptoss_onnx.errors import InputError
from gptoss_onnx.offered import REWINDING
from gptoss_onnx.runtime.cache_layout import slot_bytes
from gptoss_onnx.validation.cases.driving import Drive, DriveFailedError, Pair, joined
from gptoss_onnx.validation.cases.sizes import RESERVE
from gptoss_onnx.validation.judging.expected import Scored
from gptoss_onnx.validation.judging.metrics import Logits

MOST_BYTES = 2**30  # of a cache that is made for one case
CAPACITIES = tuple(2**power + step for power in range(13) for step in (-1, 0, 1))
TURN = 16  # tokens of a call where two caches take turns
PROMPT = 24  # tokens that run in each capacity, if it takes as many


def capacities(drive: Drive) -> Pair:
    """Caches of capacities around the powers of two up to 4096, which hold few tokens or are full,
    in a call of several and one of a token.
    """
    session, pairs = drive.session, []
    expected = drive.expected.score(drive.sequence)
    for capacity in sorted({*CAPACITIES} - {0}):
        if cache_bytes(drive, capacity) > MOST_BYTES:
            break
        tokens = drive.sequence[: min(capacity, PROMPT)]
        with session.new_cache(1, capacity) as cache:
            found = [drive.call(piece, cache) for piece in (tokens[:-1], tokens[-1:]) if piece]
        pairs.append((np.concatenate(found), expected[: len(tokens)]))
    return joined(pairs)


def cache_bytes(drive: Drive, capacity: int) -> int:
    """Return what a cache of one row takes, in bytes."""
    manifest, layout = drive.session.manifest, drive.session.contract.layout
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
    session, tokens = drive.session, drive.sequence
    expected = drive.expected.score(tokens)
    kept = drive.last(len(tokens), 2)
    begin = len(tokens) - 1 if session.manifest.offers(REWINDING) else 0
    with session.new_cache(1, len(tokens)) as cache:
        found = [session.forward([tokens], cache, logit_positions=[kept])[0]]
        try:
            session.forward([tokens[:1]], cache)
        except InputError:
            pass
        else:
            raise DriveFailedError("a full cache took one token more, expected a refusal")
        cache.rewind(begin)
        found.append(session.forward([tokens[begin:]], cache)[0])
    return np.concatenate(found), expected[[*kept, len(tokens) - 1]]


def forked(drive: Drive) -> Pair:
    """A cache and its fork: each goes on rightly after the other has gone on with wrong tokens."""
    tokens, half = drive.sequence, max(1, len(drive.sequence) // 2)
    wrong = [row[half:] for row in drive.rows(2)][1]
    pairs = []
    for first_goes_wrong in (True, False):
        with drive.session.new_cache(1, len(tokens)) as cache:
            before = drive.call(tokens[:half], cache)
            with cache.fork() as twin:
                for_wrong, for_right = (cache, twin) if first_goes_wrong else (twin, cache)
                if wrong:
                    drive.call(wrong, for_wrong)
                after = [drive.call(tokens[half:], for_right)] if wrong else []
        pairs.append((np.concatenate([before, *after]), drive.expected.score(tokens)))
    return joined(pairs)


def grown(drive: Drive) -> Pair:
    """A cache that is full grows, twice."""
    tokens, found, begin = drive.sequence, [], 0
    ends = sorted({max(1, len(tokens) // 4), max(1, len(tokens) // 2), len(tokens)})
    with drive.session.new_cache(1, ends[0]) as cache:
        for end in ends:
            cache.grow(end)
            found.append(drive.call(tokens[begin:end], cache))
            begin = end
    return np.concatenate(found), drive.expected.score(tokens)


def reset(drive: Drive) -> Pair:
    """A cache that another sequence has filled is reset and used again."""
    rows = drive.rows(2)[::-1]
    found = []
    with drive.session.new_cache(1, len(drive.sequence)) as cache:
        for tokens in rows:
            found.append(drive.call(tokens, cache))
            cache.reset()
    return np.concatenate(found), Scored.join([drive.expected.score(row) for row in rows])


def in_turn(drive: Drive) -> Pair:
    """Two caches of one session take turns, in calls of `TURN` tokens."""
    rows, length = drive.rows(2), len(drive.sequence)
    found: list[list[Logits]] = [[], []]
    with (
        drive.session.new_cache(1, length) as first,
        drive.session.new_cache(1, length + 7) as second,
    ):
        for begin in range(0, length, TURN):
            for cache, tokens, logits in zip((first, second), rows, found, strict=True):
                logits.append(drive.call(tokens[begin : begin + TURN], cache))
    scores = [drive.expected.score(row) for row in rows]
    return np.concatenate([piece for pieces in found for piece in pieces]), Scored.join(scores)
