"""What a server holds is chosen so that it fits, and refused where it cannot."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError
from gptoss_onnx.memory import MemoryRoom
from gptoss_onnx.serving.sizes import AskedSizes, Sizes, choose_sizes

GB = 10**9
TOKEN = 100_000  # bytes of a token's keys and values


def cache_bytes(slots: int, capacity: int) -> int:
    return (slots + 1) * capacity * TOKEN


def chosen(
    room: int | None,
    slots: int | None = None,
    capacity: int | None = None,
    prefix: int | None = None,
    longest: int = 131072,
) -> Sizes:
    there = None if room is None else MemoryRoom(room, "this machine")
    asked = AskedSizes(slots, capacity, prefix)
    return choose_sizes(
        asked, longest, weights=13 * GB, program=GB // 2, cache_bytes=cache_bytes, room=there
    )


@pytest.mark.parametrize(
    ("room", "slots", "capacity"),
    [(64, 8, 8192), (21, 4, 8192), (17, 1, 8192), (16, 1, 4096), (None, 8, 8192)],
)
def test_as_much_as_fits(room: int | None, slots: int, capacity: int) -> None:
    sizes = chosen(None if room is None else room * GB)
    assert (sizes.slots, sizes.capacity) == (slots, capacity)


def test_never_more_than_the_model_takes() -> None:
    assert chosen(None, longest=1024).capacity == 1024
    with pytest.raises(InputError, match="--capacity: found 2048, expected at most 1024"):
        chosen(None, capacity=2048, longest=1024)


def test_what_is_asked_for_is_taken_as_it_is() -> None:
    sizes = chosen(64 * GB, slots=3, capacity=5000, prefix=77)
    assert (sizes.slots, sizes.capacity, sizes.prefix_bytes) == (3, 5000, 77)
    assert sizes.caches == cache_bytes(3, 5000)


def test_beginnings_may_take_as_much_as_the_caches_where_it_fits() -> None:
    sizes = chosen(64 * GB)
    assert sizes.prefix_bytes == sizes.caches
    small = chosen(21 * GB)
    assert 0 < small.prefix_bytes < small.caches


@pytest.mark.parametrize(
    "asked",
    [{"slots": 64, "capacity": 131072}, {"slots": 64}, {"capacity": 131072}, {"prefix": 99 * GB}],
)
def test_what_cannot_fit_is_refused_in_one_line(asked: dict[str, int]) -> None:
    words = r"found a need of [\d.]+ GB \(weights 13.0 GB, .*\), but this machine has 16.0 GB left"
    with pytest.raises(InputError, match=words) as refused:
        chosen(16 * GB, **asked)
    assert "\n" not in str(refused.value)


@given(
    room=st.integers(0, 100 * GB),
    slots=st.none() | st.integers(1, 64),
    capacity=st.none() | st.integers(1, 131072),
    prefix=st.none() | st.integers(0, 50 * GB),
)
def test_what_is_chosen_fits(
    room: int, slots: int | None, capacity: int | None, prefix: int | None
) -> None:
    with suppress(InputError):
        sizes = chosen(room, slots, capacity, prefix)
        assert sizes.total <= room
        for asked, got in ((slots, sizes.slots), (capacity, sizes.capacity)):
            assert asked in (None, got)
