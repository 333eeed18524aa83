"""The sequence in calls of many sizes: a package may be right in calls of all sizes but one.

Legend: S tokens of a call, T positions, V vocabulary.
"""

from collections.abc import Callable, Iterable

import numpy as np

from gptoss_onnx.validation.cases.driving import Drive, Pair, joined

# Where kernels and runtimes change from one way to another, beyond the sizes that are all tried.
EDGES = tuple(2**power + step for power in range(7, 11) for step in (-1, 0, 1))


def chunked(size: int) -> Callable[[Drive], Pair]:
    """Return a drive that runs the sequence in calls of `size` tokens."""

    def run(drive: Drive) -> Pair:
        return drive.in_chunks(size)

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
        passes = packed(sizes, length)
        return joined([drive.in_calls(drive.sequence, each) for each in passes])

    return run


def edges(length: int) -> Callable[[Drive], Pair]:
    """Return a drive of calls around powers of two, in a sequence of `length` tokens."""

    def run(drive: Drive) -> Pair:
        tokens = drive.expected.named("long sequence", length)
        sizes = [size for size in EDGES if size <= length]
        return joined([drive.in_calls(tokens, each) for each in packed(sizes, length)])

    return run


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
