"""What is saved of earlier rows, and which prompts begin with it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.manifest import CacheLayer
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.cache_rows import common_prefix
from gptoss_onnx.runtime.engine import Engine
from gptoss_onnx.runtime.engine.memory import RESERVE, cache_bytes
from gptoss_onnx.runtime.engine.prefixes import MOST_STATES, Prefixes
from gptoss_onnx.runtime.row_state import RowState
from support.engine_sinks import submitted
from support.fake_package import VOCAB

ENDLESS = Sampling(stop_tokens=())
FULL = (CacheLayer(0, 0, 1, 1, "", "", "", ""),)
WINDOW = (*FULL, CacheLayer(8, 0, 1, 1, "", "", "", ""))
LONG = [place * place % VOCAB for place in range(200)]


@pytest.fixture
def engine(fake: Session) -> Iterator[Engine]:
    with Engine(fake, slots=2, capacity=300, chunk=16, max_queue=9, prefix_bytes=1 << 20) as opened:
        yield opened


def cached(engine: Engine, prompt: Sequence[int], new: int = 3) -> int:
    """Run a prompt, check its answer, and return how many of its tokens were not run."""
    sink, ticket = submitted(engine, prompt, ENDLESS, new)
    expected = list(engine.session.generate(list(prompt), ENDLESS, max_new_tokens=new))
    assert sink.wait().tokens == expected
    return ticket.cached_tokens


def state(session: Session, tokens: Sequence[int]) -> RowState:
    with session.new_cache(1, len(tokens), RESERVE, chunk=16) as row:
        session.forward([list(tokens)], row)
        return row.save_row(0)


@pytest.mark.parametrize("length", [5, 100, 200])
def test_the_same_prompt_again_runs_its_last_token_alone(engine: Engine, length: int) -> None:
    """Or nothing, where the staging row still holds it and its logits."""
    assert cached(engine, LONG[:length]) == 0
    assert cached(engine, LONG[:length]) == length
    assert cached(engine, [17, 17]) == 0
    assert cached(engine, LONG[:length]) == length - 1
    snapshot = engine.snapshot()
    assert (snapshot.prefix_hits, snapshot.cached_tokens) == (2, 2 * length - 1)


@pytest.mark.parametrize("answer", [5, 90])
@pytest.mark.parametrize("length", [5, 200])
def test_the_next_turn_runs_what_is_new(engine: Engine, length: int, answer: int) -> None:
    """Also where something else has come between."""
    prompt = LONG[:length]
    sink, _ = submitted(engine, prompt, ENDLESS, answer)
    turn = [*prompt, *sink.wait().tokens, 3, 3, 3]
    cached(engine, LONG[100:180])
    # the last token of an answer has not been run
    assert cached(engine, turn) == length + answer - 1
    # without the answer, as where thoughts are left out of the next turn
    assert cached(engine, [*prompt, 8, 9, 8]) == length


def test_a_prompt_that_parts_sooner_begins_where_the_windows_still_reach(engine: Engine) -> None:
    cached(engine, LONG)
    near = 200 - RESERVE
    assert cached(engine, [*LONG[: near + 2], 7, 7]) >= near + 2
    assert cached(engine, [*LONG[:20], 17, 17]) == 0


def test_what_two_prompts_share_is_saved_where_they_part(engine: Engine) -> None:
    """A system prompt: the third conversation does not run it again."""
    assert cached(engine, [*LONG[:150], *(90 * [1])]) == 0
    cached(engine, LONG[50:130])  # the staging row holds something else now
    assert cached(engine, [*LONG[:150], *(90 * [2])]) == 0
    assert cached(engine, [*LONG[:150], *(90 * [3])]) == 150
    assert cached(engine, [*LONG[:150], *(90 * [4])]) == 150


def test_nothing_is_saved_without_room(fake: Session) -> None:
    with Engine(fake, slots=2, capacity=300, chunk=16, max_queue=9, prefix_bytes=0) as engine:
        cached(engine, LONG[:100])
        cached(engine, [17, 17])
        assert cached(engine, LONG[:100]) == 0
        assert engine.snapshot().prefix_states == 0


def test_an_engine_begins_with_rows_that_were_saved_before(fake: Session, tmp_path: Path) -> None:
    """Mapped from a file, as a long system prompt is."""
    state(fake, LONG[:150]).save(tmp_path / "system", fake)
    system = RowState.open(tmp_path / "system", fake)
    with Engine(
        fake,
        slots=2,
        capacity=300,
        chunk=16,
        max_queue=9,
        prefix_bytes=1 << 20,
        prefixes=[system],
    ) as engine:
        assert engine.snapshot().prefix_bytes == system.nbytes
        assert cached(engine, [*LONG[:150], 7, 7]) == 150


@pytest.mark.parametrize("states", [1, 3])
def test_the_bytes_are_bounded_and_the_least_recently_used_goes(fake: Session, states: int) -> None:
    rows = [state(fake, [first, *LONG[:99]]) for first in range(6)]
    prefixes = Prefixes(fake.manifest.cache, states * rows[0].nbytes)
    for row in rows:
        prefixes.add(row)
        prefixes.find(rows[0].tokens)  # used again: it stays
        assert prefixes.nbytes <= states * rows[0].nbytes
    assert len(prefixes) == states
    kept = [prefixes.find(row.tokens).length > 0 for row in rows]
    assert kept == {1: [False] * 5 + [True], 3: [True, False, False, False, True, True]}[states]


def test_a_row_that_is_too_large_is_not_even_copied(fake: Session) -> None:
    def save() -> RowState:
        raise AssertionError("nobody asked")

    needed = cache_bytes(fake, 1, 100, 16)
    assert state(fake, LONG[:100]).nbytes <= needed
    prefixes = Prefixes(fake.manifest.cache, needed - 1)
    prefixes.keep(np.array(LONG[:100]), needed, save)
    assert len(prefixes) == 0


def test_memory_that_is_short_is_no_failure(
    fake: Session, caplog: pytest.LogCaptureFixture
) -> None:
    def save() -> RowState:
        raise MemoryError

    prefixes = Prefixes(fake.manifest.cache, 1 << 20)
    prefixes.keep(np.array(LONG[:100]), 100, save)
    assert len(prefixes) == 0
    assert "a row of 100 tokens is not kept" in caplog.text


def test_a_row_that_another_serves_for_is_not_kept_twice(fake: Session) -> None:
    prefixes = Prefixes(fake.manifest.cache, 1 << 20)
    long, near, short = (state(fake, LONG[:size]) for size in (180, 150, 50))
    prefixes.add(near)
    prefixes.add(short)  # the windows of the longer one cannot be cut back so far
    assert len(prefixes) == 2
    prefixes.add(long)  # it can be cut back to `near`, which goes
    assert prefixes.nbytes == long.nbytes + short.nbytes
    prefixes.add(near)
    assert len(prefixes) == 2
    prefixes.clear()
    assert (len(prefixes), prefixes.nbytes) == (0, 0)


def test_the_number_of_rows_is_bounded(fake: Session) -> None:
    prefixes = Prefixes(fake.manifest.cache, 1 << 30)
    with fake.new_cache(1, 9, RESERVE) as row:
        for number in range(MOST_STATES + 3):
            row.reset()
            fake.forward([[number // VOCAB, number % VOCAB]], row)
            prefixes.add(row.save_row(0))
    assert len(prefixes) == MOST_STATES
    assert prefixes.find(np.array([0, 2, 1])).length == 1
    assert prefixes.find(np.array([0, 3, 1])).length == 2


PIECES = st.lists(st.integers(0, 1), max_size=12)


@given(PIECES, PIECES)
def test_common_prefix(one: list[int], other: list[int]) -> None:
    length = common_prefix(np.array(one, int), np.array(other, int))
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


@pytest.mark.parametrize("windows", [False, True])
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(PIECES.filter(len), max_size=5),
    prompt=PIECES.filter(len),
    wrap=st.integers(0, 90),
)
def test_the_longest_usable_prefix_is_found(
    fake: Session, windows: bool, rows: list[list[int]], prompt: list[int], wrap: int
) -> None:
    """Whatever was saved before, a row that serves for more tokens is not overlooked."""
    prefixes = Prefixes(fake.manifest.cache, 1 << 30)
    head = LONG[: wrap if windows else 0]
    for tokens in rows:
        prefixes.add(state(fake, head + tokens))
    whole = np.array(head + prompt)
    found = prefixes.find(whole)
    # so near to the end every saved row can be cut back
    best = max((common_prefix(np.array(head + tokens), whole[:-1]) for tokens in rows), default=0)
    assert (found.length, found.shared) == (best, best)
    assert (found.state is None) == (best == 0)
