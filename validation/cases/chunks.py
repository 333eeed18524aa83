"""The sequence in calls of many sizes: a package may be right in calls of all sizes but one.

Legend: S tokens of a call, T positions, V vocabulary.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gptoss_onnx.validation.cases.driving import Drive, Pair, joined

# Where kernels and runtimes change from one way to another, beyond the sizes that are all tried.
EDGES = tuple(2**power + step for power in range(7, 11) for step in (-1, 0, 1))


def chunked(size: int) -> Callable[[Drive], Pair]:
    """Return a drive that runs the sequence in calls of `size` tokens."""

    def run(drive: Drive) -> Pair:
        found = drive.session.score(drive.sequence, chunk=size)
        return found, drive.expected.score(drive.sequence)

    return run


def every_size(most: int) -> Callable[[Drive], Pair]:
    """Return a drive that makes a call of every size from 1 to `most` tokens, and calls of longer
    ones, drawn from the seed, as is the order.
    """

    def run(drive: Drive) -> Pair:
        length, generator = len(drive.sequence), drive.expected.generator("chunk sizes")
        sizes = list(generator.permutation(np.arange(1, min(most, length) + 1)))
        if length > most + 1:
            longer = int(generator.integers(most + 1, length))
            sizes += [longer, length - longer]
        return in_calls(drive, drive.sequence, packed(sizes, length))

    return run


def edges(length: int) -> Callable[[Drive], Pair]:
    """Return a drive of calls around powers of two, in a sequence of `length` tokens."""

    def run(drive: Drive) -> Pair:
        tokens = drive.expected.named("long sequence", length)
        sizes = [size for size in EDGES if size <= length]
        return in_calls(drive, tokens, packed(sizes, length))

    return run


def in_calls(drive: Drive, tokens: Sequence[int], passes: Sequence[Sequence[int]]) -> Pair:
    """Run a sequence once for each pass, from an empty cache, in calls of the sizes that the pass
    has, which need not reach the end.
    """
    count, pairs = sum(map(len, passes)), []
    for sizes in passes:
        begin, found, places = 0, [], []
        with drive.session.new_cache(1, len(tokens), chunk=max(sizes)) as cache:
            for size in sizes:
                wanted = drive.last(size, count)
                piece = tokens[begin : begin + size]
                found.append(drive.session.forward([piece], cache, logit_positions=[wanted])[0])
                places.append(begin + wanted)
                begin += size
        pairs.append((np.concatenate(found), drive.expected.score(tokens)[np.concatenate(places)]))
    return joined(pairs)


def packed(sizes: Iterable[int], length: int) -> list[list[int]]:
    """Share sizes out among as few passes as it takes at first sight, each of `length` at most;
    within a pass they keep their order.
    """
    passes: list[list[int]] = []
    for size in map(int, sizes):
        first = next((calls for calls in passes if sum(calls) + size <= length), None)
        if first is None:
            passes.append([size])
        else:
            first.append(size)
    return passes
