"""Rows of target ort that move: where each row goes its own way they move as others do, and on ONNX
Runtime 1.28 into caches of one row, or they are refused.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Session
from support.tolerances import ORT_ROWS

LIMIT = ORT_ROWS["float32"]


@pytest.fixture(scope="module")
def by_row(ort_package: Package) -> Iterator[Session]:
    with Session.open(ort_package.folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def together(ort_int8_package: Package) -> Iterator[Session]:
    with Session.open(ort_int8_package.folder, threads=1) as opened:
        yield opened


def tokens_of(session: Session, count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, session.vocab, count).tolist()


@pytest.mark.parametrize(("count", "reserve"), [(5, 0), (200, 0), (200, 6), (400, 9)])
def test_rows_that_go_their_own_way(by_row: Session, count: int, reserve: int) -> None:
    tokens, more = tokens_of(by_row, count), tokens_of(by_row, 10, 1)
    stage, slots = by_row.new_cache(1, 420, reserve, chunk=64), by_row.new_cache(3, 450, chunk=32)
    by_row.forward([tokens_of(by_row, 150, seed) for seed in (5, 6, 7)], slots)
    by_row.forward([tokens], stage)
    slots.load_row(2, stage.save_row(0))
    slots.move_row(2, 0)
    assert slots.lengths.tolist() == [count, 150, 0]
    assert (slots.rewind_limit <= slots.lengths).all()
    for token in more:
        expected = by_row.forward([[token]], stage)
        logits = by_row.forward([[token]], slots, rows=1)
        np.testing.assert_allclose(logits, expected, atol=LIMIT, rtol=0)
    # and back, rewound as far as the state allows
    state = slots.save_row(0)
    stage.load_row(0, state)
    back = max(int(stage.rewind_limit[0]), 3)
    for cache in (stage, slots):
        cache.rewind([back] if cache is stage else [max(back, int(slots.rewind_limit[0])), 0, 0])
    goes_on = [*tokens, *more][int(slots.lengths[0]) :]
    whole = by_row.score([*tokens, *more])[-1]
    if goes_on:
        logits = by_row.forward([goes_on], slots, rows=1)[0, 0]
        np.testing.assert_allclose(logits, whole, atol=LIMIT, rtol=0)
    logits = by_row.forward([[*tokens, *more][back:]], stage)[0, 0] if back < count + 10 else whole
    np.testing.assert_allclose(logits, whole, atol=LIMIT, rtol=0)


@pytest.mark.parametrize("count", [5, 200])
def test_rows_of_one_length_move_into_caches_of_one(together: Session, count: int) -> None:
    tokens = [tokens_of(together, count, seed) for seed in (0, 1)]
    both, one = together.new_cache(2, 260), together.new_cache(1, 230, chunk=16)
    together.forward(tokens, both)
    together.forward([tokens_of(together, 220, 3)], one)
    one.load_row(0, both.save_row(1))
    for token in tokens_of(together, 10, 2):
        expected = together.forward([[token], [token]], both)[1]
        logits = together.forward([[token]], one)[0]
        np.testing.assert_allclose(logits, expected, atol=LIMIT, rtol=0)
    several = together.forward([[1, 2, 3]], one)  # more than a batch of two takes after others
    expected = together.score([*tokens[1], *tokens_of(together, 10, 2), 1, 2, 3])[-1]
    np.testing.assert_allclose(several[0, 0], expected, atol=LIMIT, rtol=0)


def test_what_rows_of_one_length_cannot_do(together: Session) -> None:
    cache = together.new_cache(2, 20)
    together.forward([[1, 2], [3, 4]], cache)
    state = cache.save_row(0)
    instead = "export with --target portable.* for that"
    with pytest.raises(InputError, match=f"found 2 rows, but target ort keeps .*; {instead}"):
        cache.load_row(1, state)
    with pytest.raises(InputError, match=f"found 2 rows, but target ort keeps .*; {instead}"):
        cache.move_row(0, 1)
    with pytest.raises(InputError, match=f"rows: found 1 of 2, but target ort runs .*; {instead}"):
        together.forward([[5]], cache, rows=1)
    with pytest.raises(InputError, match="length: found 1, but target ort cannot rewind a row"):
        cache.save_row(0, 1)
    assert [row.tolist() for row in cache.tokens] == [[1, 2], [3, 4]]


def test_targets_do_not_mix(by_row: Session, together: Session) -> None:
    state = by_row.new_cache(1, 9).save_row(0)
    with pytest.raises(InputError, match="state: found one of another package"):
        together.new_cache(1, 9).load_row(0, state)
