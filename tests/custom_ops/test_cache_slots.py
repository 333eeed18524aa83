"""The slots of a cache, against a dictionary that says where each token was put last."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.custom_ops.cache_slots import held_positions, slots_of, visible_slots

LAYERS = st.tuples(st.integers(1, 9), st.integers(0, 8)).map(
    lambda drawn: (drawn[0] + drawn[1], drawn[1])  # window > kept tokens
)


@given(LAYERS, st.integers(0, 3), st.integers(1, 6), st.integers(0, 60))
def test_slots_hold_the_first_and_the_last_tokens(
    layer: tuple[int, int], reserve: int, chunk: int, past: int
) -> None:
    window, kept = layer
    capacity = window + chunk - 1 + reserve
    slots = slots_of(torch.arange(past + chunk), capacity, kept).tolist()
    assert all(0 <= slot < capacity for slot in slots)
    assert slots[:kept] == list(range(len(slots)))[:kept]  # the first tokens stay
    assert len(set(slots[-chunk:])) == chunk  # no token of a call overwrites another
    held = dict(zip(slots, range(past + chunk), strict=True))
    last = torch.tensor([past + chunk - 1])
    found = held_positions(last, capacity, kept)[0].tolist()
    assert found == [held.get(slot, -1) for slot in range(capacity)]


@given(LAYERS, st.integers(1, 6), st.integers(0, 60), st.integers(0, 6))
def test_queries_see_the_kept_and_the_recent_and_padding_hides_none(
    layer: tuple[int, int], chunk: int, past: int, padding: int
) -> None:
    """Padding is written too; what it overwrites no query of the call may see."""
    window, kept = layer
    real = max(0, chunk - padding)
    capacity = min(past + chunk, window + chunk - 1)
    written = slots_of(torch.arange(past + chunk), capacity, kept).tolist()
    held = dict(zip(written, range(past + chunk), strict=True))
    positions, last = torch.arange(past, past + real), torch.tensor([past + real - 1])
    visible = visible_slots(positions.unsqueeze(0), last, capacity, window, kept)[0]
    for query, row in zip(positions.tolist(), visible, strict=True):
        seen = {held[slot] for slot in torch.nonzero(row).flatten().tolist()}
        recent = range(max(0, query - (window - kept) + 1), query + 1)
        assert seen == {*range(min(kept, query + 1)), *recent}


@given(st.integers(1, 8), st.integers(0, 8))
def test_a_cache_of_kept_tokens_alone_is_no_ring(capacity: int, more: int) -> None:
    """A short sequence in a cache no larger than it needs to be."""
    kept = capacity + more
    positions = torch.arange(capacity)
    assert torch.equal(slots_of(positions, capacity, kept), positions)
    held = held_positions(positions[-1:], capacity, kept)
    assert torch.equal(held[0], positions)
