"""Session: logits from ragged, chunked and threaded calls, and wrong input named."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import Session
from support.fake_package import VOCAB, expected_logits, write_fake_package

WINDOWS = (0, 3, 8)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_fake_package(tmp_path / "package", WINDOWS)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session.open(
        write_fake_package(tmp_path_factory.mktemp("package"), WINDOWS), threads=1
    ) as opened:
        yield opened


def test_one_call_many_chunks_and_single_tokens_agree(session: Session) -> None:
    tokens = np.random.default_rng(0).integers(0, VOCAB, 60)
    expected = np.stack([expected_logits(tokens.tolist(), WINDOWS, i) for i in range(60)])
    for chunk in (None, 1, 7, 60):
        np.testing.assert_array_equal(session.score(tokens, chunk), expected)
    cache = session.new_cache(1, 60)
    steps = [session.forward([[token]], cache)[0, 0] for token in tokens]
    np.testing.assert_array_equal(np.stack(steps), expected)
    assert session.score([]).shape == (0, VOCAB)


def test_ragged_rows_and_chosen_positions(session: Session) -> None:
    rows = [[1, 2, 3, 4, 5], [6, 7], []]
    # padding is not read, whatever stands there
    padded = [row + [-1] * (5 - len(row)) for row in rows]
    for chunk in (1, 2, 5):
        cache = session.new_cache(3, 9, chunk=chunk)
        last = session.forward(padded, cache, [5, 2, 0])
        assert last.dtype == np.float32
        np.testing.assert_array_equal(last[0, 0], expected_logits(rows[0], WINDOWS, 4))
        np.testing.assert_array_equal(last[1, 0], expected_logits(rows[1], WINDOWS, 1))
        assert not last[2].any()
        cache.reset()
        chosen = session.forward(padded, cache, [5, 2, 0], [[4, 0, 4], [1, 3, 0], [0, 1, 2]])
        for row, place, position in ((0, 0, 4), (0, 1, 0), (0, 2, 4), (1, 0, 1), (1, 2, 0)):
            np.testing.assert_array_equal(
                chosen[row, place], expected_logits(rows[row], WINDOWS, position)
            )
        assert not chosen[1, 1].any()
        assert not chosen[2].any()
        assert cache.lengths.tolist() == [5, 2, 0]
        assert session.forward(padded, cache, [0, 0, 0]).shape == (3, 1, VOCAB)
        assert session.forward([[1]] * 3, cache, [1, 1, 1], np.zeros((3, 0), np.int64)).shape == (
            3,
            0,
            VOCAB,
        )
        assert cache.lengths.tolist() == [6, 3, 1]


def test_earlier_logits_stay_as_they_were(session: Session) -> None:
    cache = session.new_cache(1, 8)
    first = session.forward([[1]], cache)
    kept = first.copy()
    session.forward([[2]], cache)
    np.testing.assert_array_equal(first, kept)


def test_threads_on_different_caches_do_not_disturb_each_other(session: Session) -> None:
    def run(seed: int) -> bool:
        tokens = np.random.default_rng(seed).integers(0, VOCAB, 120)
        cache = session.new_cache(1, 120, chunk=4)
        same = True
        for begin in range(0, 120, 3):
            logits = session.forward(tokens[None, begin : begin + 3], cache)
            same &= np.array_equal(
                logits[0, 0], expected_logits(tokens.tolist(), WINDOWS, begin + 2)
            )
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(12)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2],), r"input_ids: found shape \(2,\), expected \(2, sequence\)"),
        (([[1, 2]],), r"input_ids: found shape \(1, 2\)"),
        (([[1], [1, 2]],), "input_ids: found rows of different lengths"),
        (([[1.0], [2.0]],), "input_ids: found float64, expected integers"),
        (([[1], [VOCAB]],), rf"input_ids\[1, 0\]: found {VOCAB}, expected 0 to {VOCAB - 1}"),
        (([[1], [-1]],), r"input_ids\[1, 0\]: found -1"),
        (([[1], [1]], [1]), r"new_lengths: found shape \(1,\), expected \(2,\)"),
        (([[1], [1]], [1, 2]), r"new_lengths\[1\]: found 2, expected 0 to 1"),
        (([[1], [1]], None, [0, 0]), r"logit_positions: found shape \(2,\)"),
        (([[1], [1]], None, [[0], [1]]), r"logit_positions\[1, 0\]: found 1, expected 0 to 0"),
        (
            ([[1] * 9] * 2, [4, 9]),
            r"row 1: 0 cached \+ 9 new tokens exceed the cache capacity of 8",
        ),
    ],
)
def test_wrong_input_is_named_and_changes_nothing(
    session: Session, arguments: tuple[Any, ...], message: str
) -> None:
    cache = session.new_cache(2, 8)
    ids, *rest = arguments
    with pytest.raises(InputError, match=message):
        session.forward(ids, cache, *rest)
    assert cache.lengths.tolist() == [0, 0]


def test_a_cache_of_another_package_is_refused(session: Session, tmp_path: Path) -> None:
    with Session.open(write_fake_package(tmp_path, (0, 3, 9)), threads=1) as other:
        cache = other.new_cache(1, 8)
        with pytest.raises(InputError, match="cache: found one of another package"):
            session.forward([[1]], cache)
    with pytest.raises(InputError, match="session: found it closed"):
        other.forward([[1]], cache)


def test_a_cache_moves_between_sessions_of_one_package(package: Path) -> None:
    with (
        Session.open(package, threads=1) as first,
        Session.open(package, kernels="portable", threads=1) as second,
    ):
        cache = first.new_cache(1, 8)
        first.forward([[1, 2]], cache)
        logits = second.forward([[3]], cache)
    np.testing.assert_array_equal(logits[0, 0], expected_logits([1, 2, 3], WINDOWS, 2))
