"""KVCache: every token a query should see is there and no other, whatever was written, rewound,
forked or grown.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import KVCache, Session
from support.fake_package import VOCAB, expected_logits, write_fake_package

WINDOWS = (0, 3, 8)
Sizes = tuple[int, int, int]


class Layers(NamedTuple):
    """Window and first tokens kept of each layer."""

    windows: Sizes
    sinks: Sizes = (0, 0, 0)


PLAIN = Layers(WINDOWS)
KEEPING = Layers((0, 3, 8), (0, 2, 4))
ALL_LAYERS = (
    PLAIN,
    Layers((0, 1, 3)),
    Layers((1, 8, 2)),  # no full layer
    KEEPING,
    Layers((5, 8, 2), (4, 1, 1)),
    Layers((0, 3, 8), (0, 0, 7)),  # one window layer that keeps nothing
)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Layers, Session]]:
    root = tmp_path_factory.mktemp("packages")
    opened = {
        layers: Session.open(
            write_fake_package(root / str(i), layers.windows, sinks=layers.sinks), threads=1
        )
        for i, layers in enumerate(ALL_LAYERS)
    }
    yield opened
    for session in opened.values():
        session.close()


@pytest.fixture(scope="module")
def session(sessions: dict[Layers, Session]) -> Session:
    return sessions[PLAIN]


@pytest.fixture(scope="module")
def keeping(sessions: dict[Layers, Session]) -> Session:
    return sessions[KEEPING]


class Histories:
    """The plain model of a cache: the tokens of each row, and the rule of `start` and `reserve`."""

    def __init__(self, batch: int) -> None:
        self.rows: list[list[int]] = [[] for _ in range(batch)]
        self.start = [0] * batch

    def copy(self) -> "Histories":
        twin = Histories(len(self.rows))
        twin.rows, twin.start = [list(row) for row in self.rows], list(self.start)
        return twin


@pytest.mark.parametrize("layers", ALL_LAYERS, ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_sequence_of_operations_keeps_what_queries_see(
    sessions: dict[Layers, Session], layers: Layers, data: st.DataObject
) -> None:
    session = sessions[layers]
    batch = data.draw(st.integers(1, 3), "batch")
    capacity = data.draw(st.integers(1, 40), "capacity")
    reserve, chunk = data.draw(st.integers(0, 5), "reserve"), data.draw(st.integers(1, 9), "chunk")
    cache, histories = session.new_cache(batch, capacity, reserve, chunk=chunk), Histories(batch)
    for _ in range(data.draw(st.integers(1, 14), "operations")):
        match data.draw(st.sampled_from(["forward"] * 4 + ["rewind"] * 3 + ["fork", "grow"])):
            case "forward":
                _forward(session, cache, histories, data, layers)
            case "rewind":
                _rewind(cache, histories, data)
            case "fork":
                # The original goes on as it likes: the fork must not notice.
                fork, original = cache.fork(), histories.copy()
                _forward(session, cache, original, data, layers)
                cache.close()
                cache = fork
            case "grow":
                cache.grow(cache.capacity + data.draw(st.integers(0, 30)))
        assert cache.lengths.tolist() == [len(row) for row in histories.rows]
    cache.close()


def _forward(
    session: Session,
    cache: KVCache,
    histories: Histories,
    data: st.DataObject,
    layers: Layers,
) -> None:
    columns = data.draw(st.integers(1, 14), "columns")
    new = np.array(
        data.draw(
            st.lists(st.integers(0, columns), min_size=cache.batch, max_size=cache.batch), "new"
        )
    )
    size = cache.batch * columns
    ids = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8) % VOCAB
    ids = ids.reshape(cache.batch, columns)
    before = cache.lengths
    if (before + new > cache.capacity).any():
        with pytest.raises(InputError, match="exceed the cache capacity"):
            session.forward(ids, cache, new)
        assert (cache.lengths == before).all()
        return
    positions = np.tile(np.arange(columns), (cache.batch, 1))
    logits = session.forward(ids, cache, new, positions)
    for row, history in enumerate(histories.rows):
        history += ids[row, : new[row]].tolist()
        expected = np.zeros((columns, VOCAB), np.float32)
        for i in range(new[row]):
            place = int(before[row]) + i
            expected[i] = expected_logits(history, layers.windows, place, layers.sinks)
        np.testing.assert_array_equal(logits[row], expected)
        histories.start[row] = max(histories.start[row], int(before[row] + max(new.max() - 1, 0)))


def _rewind(cache: KVCache, histories: Histories, data: st.DataObject) -> None:
    before, limit, kept = cache.lengths, cache.rewind_limit, cache.kept
    targets = [data.draw(st.integers(0, len(row)), "target") for row in histories.rows]
    if data.draw(st.booleans(), "stay within the limit"):
        targets = [max(int(low), target) for low, target in zip(limit, targets, strict=True)]
    # What the contract promises: down to start − reserve, and what every window layer keeps.
    # (`start` is at most the model's, which counts the last column of a call as if each column were
    # a call of its own.)
    assert all(
        low <= max(start - cache.reserve, 0)
        for low, start in zip(limit, histories.start, strict=True)
    )
    if any(kept < target < low for target, low in zip(targets, limit, strict=True)):
        with pytest.raises(InputError, match="cannot rewind"):
            cache.rewind(targets)
        assert (cache.lengths == before).all()
        return
    cache.rewind(targets)
    for row, target in enumerate(targets):
        del histories.rows[row][target:]


@pytest.mark.parametrize("kv_dtype", ["float16", "bfloat16"])
def test_narrow_caches_hold_the_same(kv_dtype: str, tmp_path: Any) -> None:
    with Session.open(write_fake_package(tmp_path, WINDOWS, kv_dtype), threads=1) as session:
        tokens = np.arange(30) % VOCAB
        cache = session.new_cache(1, 20, chunk=4)
        first = session.forward(tokens[None, :17], cache)
        np.testing.assert_array_equal(first[0, 0], expected_logits(tokens.tolist(), WINDOWS, 16))
        cache.grow(40)
        twin = cache.fork()
        for held in (cache, twin):
            rest = session.forward(tokens[None, 17:], held)
            np.testing.assert_array_equal(rest[0, 0], expected_logits(tokens.tolist(), WINDOWS, 29))
        assert cache.nbytes == 2 * 2 * (40 + min(40, 3 + 3) + min(40, 8 + 3))


def test_memory_is_bounded_by_capacity_and_window(session: Session) -> None:
    cache = session.new_cache(1, 1000, reserve=2, chunk=16)
    assert [cache.slots(layer) for layer in cache.layers] == [1000, 3 + 2 + 15, 8 + 2 + 15]
    assert cache.nbytes == 4 * 2 * (1000 + 20 + 25)
    small = session.new_cache(1, 10, chunk=16)
    assert [small.slots(layer) for layer in small.layers] == [10, 10, 10]


def test_a_row_fills_up_while_its_neighbour_goes_on(session: Session) -> None:
    """Padding of a full row lands beside its tokens: capacity counts tokens alone."""
    cache = session.new_cache(2, 100, reserve=1, chunk=64)
    full, other = np.arange(100) % VOCAB, np.arange(100)[::-1] % VOCAB
    session.forward([full, other], cache, [100, 3])
    session.forward(np.stack((full, other))[:, 3:], cache, [0, 97])
    last = session.forward([[0], [0]], cache, [0, 0], [[0], [0]])
    assert not last.any()
    cache.rewind([99, 99])
    logits = session.forward([full[99:], other[99:]], cache)
    for row, tokens in enumerate((full, other)):
        np.testing.assert_array_equal(logits[row, 0], expected_logits(tokens.tolist(), WINDOWS, 99))


def test_repeated_small_rewinds_cannot_eat_the_window(session: Session) -> None:
    cache = session.new_cache(1, 100, reserve=2, chunk=1)
    for token in range(30):
        session.forward([[token % VOCAB]], cache)
    assert cache.start.tolist() == [29]
    assert cache.rewind_limit.tolist() == [27]
    cache.rewind(28)
    cache.rewind([27])
    with pytest.raises(
        InputError, match=r"row 0: cannot rewind to 26: .*allowed is 27 to 27, or 0"
    ):
        cache.rewind(26)
    cache.rewind(27)  # no step at all is always possible
    cache.reset()
    assert cache.lengths.tolist() == cache.start.tolist() == cache.rewind_limit.tolist() == [0]


def test_kept_tokens_take_no_slot_more(keeping: Session) -> None:
    cache = keeping.new_cache(1, 1000, reserve=2, chunk=16)
    assert [cache.slots(layer) for layer in cache.layers] == [1000, 3 + 2 + 15, 8 + 2 + 15]
    small = keeping.new_cache(1, 2, chunk=16)  # fewer than are kept: one slot is left to the ring
    assert [small.slots(layer) for layer in small.layers] == [2, 2 + 1, 4 + 1]


def test_a_wrapped_row_goes_back_to_what_every_layer_keeps(keeping: Session) -> None:
    tokens = [(7 * place) % VOCAB for place in range(40)]
    cache = keeping.new_cache(2, 40, reserve=1, chunk=4)
    assert cache.kept == 2
    for begin in range(0, 40, 4):
        keeping.forward([tokens[begin : begin + 4]] * 2, cache)
    message = (
        r"row 1: cannot rewind to 3: .*allowed is 35 to 40, or 0 to 2; .* above 1 goes further"
    )
    with pytest.raises(InputError, match=message):
        cache.rewind([40, 3])
    cache.rewind([2, 1])
    assert (cache.start.tolist(), cache.rewind_limit.tolist()) == ([2, 1], [0, 0])
    rest = keeping.forward([tokens[3:13]] * 2, cache)
    for row, held in enumerate((tokens[:2], tokens[:1])):
        history = held + tokens[3:13]
        expected = expected_logits(history, KEEPING.windows, len(history) - 1, KEEPING.sinks)
        np.testing.assert_array_equal(rest[row, 0], expected)


def test_a_ring_that_has_not_wrapped_grows_with_its_kept_tokens(keeping: Session) -> None:
    tokens = [(5 * place) % VOCAB for place in range(60)]
    cache = keeping.new_cache(1, 3, chunk=8)
    keeping.forward([tokens[:3]], cache)
    for capacity in (7, 60):
        cache.grow(capacity)
        held = int(cache.lengths[0])
        twin = cache.fork()
        for each in (cache, twin):
            logits = keeping.forward([tokens[held:capacity]], each)
            expected = expected_logits(tokens, KEEPING.windows, capacity - 1, KEEPING.sinks)
            np.testing.assert_array_equal(logits[0, 0], expected)


def test_without_wrapping_any_rewind_is_exact(session: Session) -> None:
    tokens = list(range(12))
    cache = session.new_cache(1, 12)
    session.forward([tokens], cache)
    cache.rewind(2)
    logits = session.forward([[7]], cache)
    np.testing.assert_array_equal(logits[0, 0], expected_logits([0, 1, 7], WINDOWS, 2))
