"""Rows that move between caches of other sizes: every token a query should see comes along, rewinds
stay within what was promised, and neighbours notice nothing.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import KVCache, Session
from gptoss_onnx.runtime.cache_buffer import CacheBuffer
from gptoss_onnx.runtime.device_memory import DeviceBlock
from gptoss_onnx.runtime.row_state import RowState
from support.fake_package import VOCAB, expected_logits, write_fake_package

WINDOWS = (0, 3, 8)
# windows and first tokens kept of each layer
LAYERS = (
    (WINDOWS, (0, 0, 0)),
    ((0, 3, 8), (0, 2, 4)),
    ((5, 8, 2), (4, 1, 1)),  # no full layer
    ((0, 3, 8), (0, 0, 7)),
)


@pytest.fixture(scope="module", params=["numpy", "device"], autouse=True)
def memory(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where buffers lie: numpy's memory, or ONNX Runtime's, as on a device; here it is the CPU."""

    def elsewhere(onnxruntime: Any, array: np.ndarray, dtype: str, device: str) -> CacheBuffer:
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype)
        value.update_inplace(array)
        return CacheBuffer(value, None, array.nbytes, dtype, device)

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "device":
            patch.setattr(CacheBuffer, "of", elsewhere)
        yield request.param


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory, memory: str) -> Iterator[list[Session]]:
    root = tmp_path_factory.mktemp("packages")
    opened = [
        Session.open(write_fake_package(root / str(i), windows, sinks=sinks), threads=1)
        for i, (windows, sinks) in enumerate(LAYERS)
    ]
    yield opened
    for session in opened:
        session.close()


@pytest.fixture(scope="module")
def session(sessions: list[Session]) -> Session:
    return sessions[0]


@dataclass
class Held:
    """A cache, and what each of its rows is to hold."""

    cache: KVCache
    rows: list[list[int]] = field(default_factory=list)

    def check(self) -> None:
        assert [row.tolist() for row in self.cache.tokens] == self.rows
        assert (self.cache.rewind_limit <= self.cache.lengths).all()


@pytest.mark.parametrize("number", range(len(LAYERS)))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_sequence_of_moves_keeps_what_queries_see(
    sessions: list[Session], number: int, data: st.DataObject
) -> None:
    session, (windows, sinks) = sessions[number], LAYERS[number]

    def new_cache() -> Held:
        batch, capacity = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
        reserve, chunk = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 9))
        cache = session.new_cache(batch, capacity, reserve, chunk=chunk)
        return Held(cache, [[] for _ in range(batch)])

    caches = [new_cache() for _ in range(2)]
    states: list[tuple[RowState, list[int]]] = []
    operations = ["forward"] * 5 + ["save", "load"] * 3 + ["rewind"] * 2 + ["move", "grow"]
    for _ in range(data.draw(st.integers(1, 16), "operations")):
        held = data.draw(st.sampled_from(caches), "cache")
        match data.draw(st.sampled_from(operations)):
            case "forward":
                _forward(session, held, data, windows, sinks)
            case "save":
                _save(held, states, data)
            case "load" if states:
                _load(held, *data.draw(st.sampled_from(states), "state"), data)
            case "rewind":
                _rewind(held, data)
            case "move" if held.cache.batch > 1:
                source, target = data.draw(st.permutations(range(held.cache.batch)), "rows")[:2]
                held.cache.move_row(source, target)
                held.rows[target], held.rows[source] = held.rows[source], []
            case "grow":
                held.cache.grow(held.cache.capacity + data.draw(st.integers(0, 30)))
        for each in caches:
            each.check()


def _forward(
    session: Session,
    held: Held,
    data: st.DataObject,
    windows: tuple[int, int, int],
    sinks: tuple[int, int, int],
) -> None:
    cache = held.cache
    rows = data.draw(st.integers(1, cache.batch), "rows that run")
    columns = data.draw(st.integers(1, 14), "columns")
    room = [min(columns, cache.capacity - len(row)) for row in held.rows[:rows]]
    new = [data.draw(st.integers(0, most), "new") for most in room]
    ids = np.frombuffer(data.draw(st.binary(min_size=42, max_size=42)), np.uint8) % VOCAB
    ids = np.resize(ids, (rows, columns))
    positions = np.tile(np.arange(columns), (rows, 1))
    logits = session.forward(ids, cache, new, positions, rows=rows)
    for row in range(rows):
        before = len(held.rows[row])
        held.rows[row] += ids[row, : new[row]].tolist()
        expected = np.zeros((columns, VOCAB), np.float32)
        for i in range(new[row]):
            expected[i] = expected_logits(held.rows[row], windows, before + i, sinks)
        np.testing.assert_array_equal(logits[row], expected)


def _save(held: Held, states: list[tuple[RowState, list[int]]], data: st.DataObject) -> None:
    cache = held.cache
    row = data.draw(st.integers(0, cache.batch - 1), "row")
    length = data.draw(st.one_of(st.none(), st.integers(0, len(held.rows[row]))), "length")
    end = len(held.rows[row]) if length is None else length
    if cache.kept < end < cache.rewind_limit[row]:
        with pytest.raises(InputError, match=r"cannot save .* window layers have overwritten"):
            cache.save_row(row, length)
        return
    state = cache.save_row(row, length)
    assert state.tokens.tolist() == held.rows[row][:end]
    states.append((state, held.rows[row][:end]))


def _load(held: Held, state: RowState, tokens: list[int], data: st.DataObject) -> None:
    cache = held.cache
    row = data.draw(st.integers(0, cache.batch - 1), "row")
    if len(tokens) > cache.capacity:
        with pytest.raises(InputError, match="exceed the cache capacity"):
            cache.load_row(row, state)
        return
    cache.load_row(row, state)
    held.rows[row] = list(tokens)
    if cache.rewind_limit[row]:
        # the reserve that it was saved with is there, as far as this cache can promise it
        assert cache.rewind_limit[row] <= max(state.floor, len(tokens) - cache.reserve)


def _rewind(held: Held, data: st.DataObject) -> None:
    cache, targets = held.cache, []
    for row, limit in zip(held.rows, cache.rewind_limit, strict=True):
        allowed = st.integers(int(limit), len(row))
        kept = st.integers(0, min(cache.kept, len(row)))
        targets.append(data.draw(st.one_of(allowed, kept), "target"))
    cache.rewind(targets)
    for row, target in zip(held.rows, targets, strict=True):
        del row[target:]


def test_a_state_is_no_larger_than_what_later_tokens_see(session: Session) -> None:
    with session.new_cache(2, 200, reserve=2, chunk=16) as cache:
        session.forward([list(np.arange(100) % VOCAB)] * 2, cache)
        state = cache.save_row(1)
        assert [key.shape for key, _ in state.blocks] == [(1, 100, 1), (1, 4, 1), (1, 9, 1)]
        assert state.nbytes == 8 * 100 + 4 * 2 * (100 + 4 + 9)
        assert (state.length, state.floor) == (100, 98)
        cache.reset()
        assert state.tokens.tolist() == list(np.arange(100) % VOCAB)  # it is a copy


def test_a_loaded_row_can_be_rewound_as_far_as_both_caches_reach(session: Session) -> None:
    tokens = list(np.arange(60) % VOCAB)
    limits = {}
    for saved in (0, 4):
        source = session.new_cache(1, 60, saved, chunk=4)
        session.forward([tokens], source)
        for loaded in (0, 2, 9):
            target = session.new_cache(2, 100, loaded, chunk=2)
            target.load_row(1, source.save_row(0))
            assert target.rewind_limit[0] == 0
            limits[saved, loaded] = int(target.rewind_limit[1])
            assert target.start[1] == limits[saved, loaded] + loaded
    # the room for the next chunk of two holds older tokens until it comes
    assert limits == {(0, 0): 60, (0, 2): 60, (0, 9): 60, (4, 0): 58, (4, 2): 56, (4, 9): 56}


def test_a_row_that_lost_nothing_goes_back_to_any_length(session: Session) -> None:
    source, target = session.new_cache(1, 3, chunk=1), session.new_cache(2, 50, chunk=3)
    session.forward([[1, 2, 3]], source)
    session.forward([[5] * 40] * 2, target)
    target.load_row(0, source.save_row(0))
    assert (target.rewind_limit.tolist(), target.start.tolist()) == ([0, 39], [0, 39])
    target.rewind([1, 40])
    logits = session.forward([[4], [4]], target)
    np.testing.assert_array_equal(logits[0, 0], expected_logits([1, 4], WINDOWS, 1))
    np.testing.assert_array_equal(logits[1, 0], expected_logits([5] * 40 + [4], WINDOWS, 40))


def test_a_load_that_is_cut_off_leaves_an_empty_row(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = session.new_cache(1, 9), session.new_cache(2, 9)
    session.forward([[1, 2, 3]], source)
    session.forward([[4], [5]], target)
    state = source.save_row(0)

    def interrupted(buffer: CacheBuffer, *_: object) -> None:
        if buffer.array is not None:
            buffer.array[1] = 99
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gptoss_onnx.runtime.row_moves.write_block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            target.load_row(1, state)
    assert [row.tolist() for row in target.tokens] == [[4], []]
    logits = session.forward([[6], [7]], target)
    np.testing.assert_array_equal(logits[1, 0], expected_logits([7], WINDOWS, 0))


def test_states_go_to_files_from_any_memory(session: Session, memory: str, tmp_path: Path) -> None:
    source = session.new_cache(2, 40, reserve=1, chunk=8)
    tokens = [(5 * place) % VOCAB for place in range(30)]
    session.forward([[0] * 30, tokens], source)
    state = source.save_row(1)
    assert all(
        isinstance(block, DeviceBlock) == (memory == "device")
        for pair in state.blocks
        for block in pair
    )
    state.save(tmp_path / "row", session)
    opened = RowState.open(tmp_path / "row", session)
    assert opened.nbytes == state.nbytes
    source.close()  # a state is a copy
    target = session.new_cache(3, 35)
    for row, each in enumerate((opened, state)):
        target.load_row(row, each)
    logits = session.forward([[7], [7], [7]], target)
    for row in range(2):
        expected = expected_logits([*tokens, 7], WINDOWS, 30)
        np.testing.assert_array_equal(logits[row, 0], expected)


def test_memory_is_let_go_of(session: Session, memory: str) -> None:
    if memory == "numpy":
        pytest.skip("numpy frees its own")
    cache = session.new_cache(1, 40, chunk=8)
    session.forward([[1] * 30], cache)
    value = cache.buffers[0][0].value
    before = sys.getrefcount(value)
    state = cache.save_row(0)
    cache.load_row(0, state)
    cache.load_row(0, state)
    assert sys.getrefcount(value) == before
