"""Several rows in one cache, alike and not.

Legend: B rows, S new tokens, W the window (or a stand-in if no layer slides; see `sizes`).
"""

from collections.abc import Callable, Sequence

from gptoss_onnx.validation.cases.driving import Drive, Pair, joined
from gptoss_onnx.validation.cases.rows import Rows

MOST_ROWS = 8
SHORT = 12  # tokens of the longest row where many batches are run


def even(drive: Drive) -> Pair:
    """Three rows of one length in one call, then a token a row and call, beyond the window."""
    steps = drive.sizes.steps
    with drive.session.new_cache(3, drive.sizes.length) as cache:
        rows = Rows(drive, cache, drive.sizes.length)
        for count in (drive.sizes.length - steps, *[1] * steps):
            rows.go_on([count] * 3)
    return rows.pair()


def ragged(drive: Drive) -> Pair:
    """Three rows of different lengths in one right-padded call, then some rows a step."""
    steps = drive.sizes.steps
    with drive.session.new_cache(3, drive.sizes.length) as cache:
        rows = Rows(drive, cache, drive.sizes.length)
        rows.go_on([drive.sizes.length - steps, max(1, drive.sizes.window // 2), 1])
        for step in range(steps):
            # rows with no new token are part of the contract
            rows.go_on([int(step % 2 == 0), 1, int(step % 3 != 1)])
    return rows.pair()


def ragged_chunks(drive: Drive) -> Pair:
    """Three rows of unlike length that go on by several tokens, of which some have none: more than
    the window and fewer.
    """
    window, length = drive.sizes.window, drive.sizes.length
    with drive.session.new_cache(3, length) as cache:
        rows = Rows(drive, cache, length)
        rows.go_on([1, min(window + 3, length - 1), 0])
        rows.go_on([max(1, window // 2), 0, 1])
        rows.go_on([length] * 3)
    return rows.pair()


def even_batches(drive: Drive) -> Pair:
    """1 to 8 rows of one length, each batch in a cache of its own: one call, then a token a row and
    call.
    """
    return _batches(drive, lambda batch, first: [[first] * batch] + [[1] * batch] * 2)


def ragged_batches(drive: Drive) -> Pair:
    """2 to 8 rows of lengths drawn from the seed, each batch in a cache of its own: a first call,
    then one token or none for each row, then several or none.
    """
    generator = drive.expected.generator("ragged batches")

    def calls(batch: int, first: int) -> list[list[int]]:
        lengths = generator.integers(0, first + 1, size=batch)
        lengths[generator.integers(batch)] = first
        later = [generator.integers(0, most, size=batch) for most in (2, 4)]
        return [list(map(int, new)) for new in (lengths, *later)]

    return _batches(drive, calls)


def _batches(drive: Drive, calls: Callable[[int, int], Sequence[Sequence[int]]]) -> Pair:
    """Run batches of 1 to 8 rows; `calls` gives the new tokens of each row in each call, from the
    number of rows and the most of the first call.
    """
    short = min(SHORT, drive.sizes.length)
    pairs = []
    for batch in range(1, MOST_ROWS + 1):
        with drive.session.new_cache(batch, short) as cache:
            rows = Rows(drive, cache, short)
            for new in calls(batch, max(1, short - 3)):
                rows.go_on(new)
        pairs.append(rows.pair())
    return joined(pairs)
