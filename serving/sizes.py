"""Sizes of a server: how many answers run at once, how long each may be, and what memory that
takes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.errors import InputError
from gptoss_onnx.memory import MemoryRoom

# What is chosen where nothing is asked for, and the memory allows it.
MOST_SLOTS = 8
MOST_CAPACITY = 8192
LEAST_CAPACITY = 512
# Of the room: the rest is for what nobody can count beforehand.
_SHARE = 0.9
CacheBytes = Callable[[int, int], int]  # bytes of the caches, for slots and capacity


@dataclass(frozen=True)
class AskedSizes:
    """What the operator asks for; None leaves it to the machine."""

    slots: int | None
    capacity: int | None
    prefix_bytes: int | None


@dataclass(frozen=True)
class Sizes:
    """What a server holds.

    Attributes:
        slots: answers that run at once.
        capacity: tokens of one conversation, prompt and answer together.
        weights: bytes of the weights; they are mapped from their files.
        caches: bytes of the KV caches of all slots, and of what else an engine takes for them.
        prefix_bytes: bytes that beginnings of conversations may take, kept to be gone on with.
        program: bytes of all else.
    """

    slots: int
    capacity: int
    weights: int
    caches: int
    prefix_bytes: int
    program: int

    @property
    def total(self) -> int:
        """Bytes of memory that the server may take."""
        return self.weights + self.caches + self.prefix_bytes + self.program

    @property
    def parts(self) -> str:
        """The total's parts in words."""
        return (
            f"weights {file_size(self.weights)}, KV caches {file_size(self.caches)}, "
            f"prefix cache {file_size(self.prefix_bytes)}, program {file_size(self.program)}"
        )


def choose_sizes(
    asked: AskedSizes,
    longest: int,
    *,
    weights: int,
    program: int,
    cache_bytes: CacheBytes,
    room: MemoryRoom | None,
) -> Sizes:
    """Return sizes that fit.

    What is asked for is taken as it is. Without it, conversations are as long as the model takes
    and at most 8192 tokens, and as many run at once as fit, at most 8. Where not even one fits,
    they become shorter. Kept beginnings may take as much as the caches, and at most half of what
    is left.

    Args:
        asked: by the operator.
        longest: tokens that the model takes.
        weights: bytes.
        program: bytes beside weights, caches and kept beginnings.
        cache_bytes: of the caches, for slots and capacity.
        room: memory that there is; None where nobody knows, and then everything fits.

    Raises:
        InputError: what is asked for does not fit, or the model does not take it.
    """
    if asked.capacity is not None and asked.capacity > longest:
        raise InputError(
            f"--capacity: found {asked.capacity}, expected at most {longest}, the longest sequence "
            "of this model"
        )
    for capacity in _halves(asked.capacity, min(longest, MOST_CAPACITY), LEAST_CAPACITY):
        for slots in _halves(asked.slots, MOST_SLOTS, 1):
            caches = cache_bytes(slots, capacity)
            sizes = Sizes(slots, capacity, weights, caches, asked.prefix_bytes or 0, program)
            if room is None or sizes.total <= room.size * _share(asked):
                return _with_prefix(sizes, asked, room)
    assert room is not None
    raise InputError(
        f"{count_of(sizes.slots, 'slot')} of {count_of(sizes.capacity, 'token')}: found a need of "
        f"{file_size(sizes.total)} ({sizes.parts}), but {room.words}; ask for fewer --slots or a "
        "smaller --capacity"
    )


def _share(asked: AskedSizes) -> float:
    """Return how much of the room may be taken: all, by an operator who chooses everything."""
    chosen = None not in (asked.slots, asked.capacity)
    return 1.0 if chosen else _SHARE


def _with_prefix(sizes: Sizes, asked: AskedSizes, room: MemoryRoom | None) -> Sizes:
    if asked.prefix_bytes is not None:
        return sizes
    left = sizes.caches if room is None else max(0, int(room.size * _SHARE) - sizes.total) // 2
    return replace(sizes, prefix_bytes=min(sizes.caches, left))


def _halves(asked: int | None, most: int, least: int) -> list[int]:
    """Return what may be tried: what is asked for alone, or `most` and its halves down to
    `least`.
    """
    if asked is not None:
        return [asked]
    tried = [most]
    while tried[-1] // 2 >= least:
        tried.append(tried[-1] // 2)
    return tried
