"""What a cache remembers of its tokens, and the repetition penalty that counts all of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError, PackageError, RuntimeUnavailable
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.binding import Binding
from support.fake_package import VOCAB, expected_logits, write_fake_package
from support.tolerances import PACKAGE_LOGITS

WINDOWS = (0, 3, 8)
BIAS = np.linspace(0, 40, VOCAB, dtype=np.float32)[::-1]
# The logits of the first tokens are far above the others: only the penalty makes a text leave them.
PENALIZED = Sampling(stop_tokens=(), repetition_penalty=3.0)
DRAWN = Sampling(stop_tokens=(), repetition_penalty=3.0, temperature=8.0, seed=5)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = write_fake_package(
        tmp_path_factory.mktemp("package"), WINDOWS, bias=BIAS.tolist(), sign=-0.1
    )
    with Session.open(folder, threads=1) as opened:
        yield opened


@pytest.mark.parametrize("sampling", [PENALIZED, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_continuing_a_cache_is_the_whole_prompt(
    session: Session, sampling: Sampling, cut: int
) -> None:
    prompt = [0, 1, 2, 3, 1, 2]
    whole = list(session.generate(prompt, sampling, max_new_tokens=8))
    without = list(session.generate(prompt[cut:], sampling, max_new_tokens=8))
    assert whole != without  # else this would show nothing
    with session.new_cache(1, 20) as cache:
        session.forward([prompt[:cut]], cache)
        assert (
            list(session.generate(prompt[cut:], sampling, max_new_tokens=8, cache=cache)) == whole
        )
        assert cache.tokens[0].tolist() == [*prompt, *whole[:-1]]


def test_rows_forks_and_rewinds_take_their_tokens_along(session: Session) -> None:
    rows = [[0, 1, 2, 3, 4], [5, 6], [7, 0, 1]]
    alone = [list(session.generate([*row, 9], PENALIZED, max_new_tokens=6)) for row in rows]
    padded = [row + [0] * (5 - len(row)) for row in rows]
    with session.new_cache(3, 30) as cache:
        session.forward(padded, cache, [5, 2, 3])
        twin = cache.fork()
        # The original says something else, then goes back.
        session.forward([[8, 10, 11]] * 3, cache, [3, 2, 0])
        assert [row.tolist() for row in cache.tokens] == [
            [*rows[0], 8, 10, 11],
            [*rows[1], 8, 10],
            rows[2],
        ]
        cache.rewind([5, 2, 3])
        cache.grow(40)
        for held in (cache, twin):
            generation = session.generate([[9]] * 3, PENALIZED, max_new_tokens=6, cache=held)
            list(generation)
            assert generation.tokens == alone
            assert [row.tolist() for row in held.tokens] == [
                [*row, 9, *said[:-1]] for row, said in zip(rows, alone, strict=True)
            ]
        cache.reset()
        assert [row.tolist() for row in cache.tokens] == [[], [], []]


def test_a_rewind_in_the_middle_of_a_generation_is_forgotten_too(session: Session) -> None:
    with session.new_cache(1, 30) as cache:
        generation = session.generate([0, 1, 2], PENALIZED, max_new_tokens=6, cache=cache)
        said = [next(generation) for _ in range(3)]
        cache.rewind(2)
        after = next(generation)
        fresh = next(session.generate([0, 1, said[-1]], PENALIZED))
        assert after == fresh
        assert cache.tokens[0].tolist() == [0, 1, said[-1]]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_tokens_are_those_of_a_plain_history(session: Session, data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 3))
    cache = session.new_cache(batch, 12, chunk=data.draw(st.integers(1, 5)))
    histories: list[list[int]] = [[] for _ in range(batch)]
    for _ in range(data.draw(st.integers(1, 8))):
        match data.draw(
            st.sampled_from(["forward", "forward", "rewind", "fork", "grow", "refused"])
        ):
            case "forward":
                new = [data.draw(st.integers(0, cache.capacity - len(row))) for row in histories]
                ids = np.arange(batch * max(new, default=0)).reshape(batch, -1) * 7 % VOCAB
                session.forward(ids, cache, new)
                for row, count, history in zip(ids, new, histories, strict=True):
                    history += row[:count].tolist()
            case "rewind":
                floor = cache.rewind_limit
                lengths = [
                    data.draw(st.integers(int(low), len(row)))
                    for low, row in zip(floor, histories, strict=True)
                ]
                cache.rewind(lengths)
                for history, length in zip(histories, lengths, strict=True):
                    del history[length:]
            case "fork":
                twin = cache.fork()
                cache.reset()
                cache = twin
            case "grow":
                cache.grow(cache.capacity + 3)
            case "refused":
                with pytest.raises(InputError):
                    session.forward(np.ones((batch, cache.capacity + 1), np.int64), cache)
        assert [row.tolist() for row in cache.tokens] == histories


def test_tokens_are_copies(session: Session) -> None:
    with session.new_cache(1, 8) as cache:
        session.forward([[1, 2]], cache)
        cache.tokens[0][:] = 7
        assert cache.tokens[0].tolist() == [1, 2]


# Calls that fail


def _fail_at(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let run number `count` write its numbers and then fail, as an op in the last layer would."""
    run, calls = Binding.run, 0

    def failing(self: Binding, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        logits = run(self, *arguments)
        if calls == count:
            raise error
        return logits

    monkeypatch.setattr(Binding, "run", failing)


ERRORS = [RuntimeUnavailable("ONNX Runtime failed"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=["error", "interrupt"])
def test_chunks_before_a_failed_one_stay_and_the_rest_can_be_run_again(
    session: Session, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    tokens = [1, 2, 3, 4, 5, 6]
    with session.new_cache(1, 20, chunk=2) as cache:
        with monkeypatch.context() as patch:
            _fail_at(patch, 2, error)
            with pytest.raises(type(error)):
                session.forward([tokens], cache)
        assert cache.lengths.tolist() == [2]
        assert cache.tokens[0].tolist() == [1, 2]
        logits = session.forward([tokens[2:]], cache)
        np.testing.assert_array_equal(
            logits[0, 0], BIAS - np.float32(0.1) * expected_logits(tokens, WINDOWS, 5)
        )


@pytest.mark.parametrize("error", ERRORS, ids=["error", "interrupt"])
def test_a_generation_that_failed_has_ended(
    session: Session, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    generation = session.generate([1, 2], PENALIZED, max_new_tokens=9)
    first = next(generation)
    _fail_at(monkeypatch, 1, error)
    with pytest.raises(type(error)):
        next(generation)
    assert list(generation) == []
    assert generation.cache is None
    assert generation.tokens == [[first]]
    assert generation.finish_reason is None


def test_logits_that_are_not_finite_end_a_generation(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Binding.run
    monkeypatch.setattr(Binding, "run", lambda *arguments: run(*arguments) * np.float32(np.nan))
    generation = session.generate([1, 2], PENALIZED)
    with pytest.raises(PackageError, match="logits: the largest is nan"):
        next(generation)
    assert list(generation) == []


def test_a_refused_step_can_be_tried_again(session: Session) -> None:
    whole = list(session.generate([0, 1, 2, 3], PENALIZED, max_new_tokens=5))
    with session.new_cache(1, 3) as cache:
        generation = session.generate([0, 1, 2, 3], PENALIZED, max_new_tokens=5, cache=cache)
        with pytest.raises(InputError, match="exceed the cache capacity of 3"):
            next(generation)
        cache.grow(20)
        assert list(generation) == whole


# Target ort


@pytest.mark.parametrize("fixture", ["ort_package", "ort_int8_package"])
def test_finished_rows_of_target_ort_show_the_tokens_they_run_again_where_they_must(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    """They must for ONNX Runtime before 1.32."""
    folder = request.getfixturevalue(fixture).folder
    prompts = [[1, 2, 3, 4], [5, 6, 7, 8]]
    with Session.open(folder, threads=1) as session, session.new_cache(2, 40) as cache:
        free = session.generate(prompts, PENALIZED, max_new_tokens=6)
        list(free)
        stop = next(token for token in free.tokens[0] if token not in free.tokens[1])
        end = free.tokens[0].index(stop) + 1
        sampling = Sampling(stop_tokens=(stop,), repetition_penalty=PENALIZED.repetition_penalty)
        generation = session.generate(prompts, sampling, max_new_tokens=6, cache=cache)
        list(generation)
        assert generation.tokens == [free.tokens[0][:end], free.tokens[1]]
        assert cache.tokens[1].tolist() == [*prompts[1], *free.tokens[1][:-1]]
        again = [stop] * (5 - end) if fixture == "ort_int8_package" else []
        said = free.tokens[0][:end] if again else free.tokens[0][: end - 1]
        assert cache.tokens[0].tolist() == [*prompts[0], *said, *again]


def test_the_penalty_goes_on_in_target_ort(ort_package: Package) -> None:
    prompt = [1, 2, 3, 4, 5, 6, 2, 4]
    with Session.open(ort_package.folder, threads=1) as session, session.new_cache(1, 40) as cache:
        whole = list(session.generate(prompt, PENALIZED, max_new_tokens=8))
        session.forward([prompt[:6]], cache)
        assert list(session.generate(prompt[6:], PENALIZED, max_new_tokens=8, cache=cache)) == whole


def test_a_failed_call_of_target_ort_is_not_tried_again(
    ort_int8_package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its windows move on in every layer that ran before the failure: the same call would move them
    twice.
    """
    tokens = np.arange(60) % 40 + 1
    with (
        Session.open(ort_int8_package.folder, threads=1) as session,
        session.new_cache(1, 80) as cache,
    ):
        with session.new_cache(1, 80) as whole:
            expected = session.forward(tokens[None], whole)
        session.forward(tokens[None, :50], cache)
        with monkeypatch.context() as patch:
            _fail_at(patch, 1, RuntimeUnavailable("ONNX Runtime failed"))
            with pytest.raises(RuntimeUnavailable):
                session.forward(tokens[None, 50:], cache)
        for held in (cache, cache.fork()):
            with pytest.raises(
                InputError, match="moved the windows of target ort; reset it, or make another"
            ):
                session.forward(tokens[None, 50:], held)
        cache.reset()
        np.testing.assert_array_equal(session.forward(tokens[None], cache), expected)


def test_a_failed_call_of_target_ort_is_tried_again_where_rows_may_differ(
    ort_package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache moves the windows itself, before the call: the op evicts nothing."""
    tokens = np.arange(160) % 40 + 1
    with Session.open(ort_package.folder, threads=1) as session, session.new_cache(1, 200) as cache:
        expected = session.score(tokens)[-1]
        session.forward(tokens[None, :150], cache)
        with monkeypatch.context() as patch:
            _fail_at(patch, 1, RuntimeUnavailable("ONNX Runtime failed"))
            with pytest.raises(RuntimeUnavailable):
                session.forward(tokens[None, 150:], cache)
        assert cache.window_starts.tolist() != [0]
        for held in (cache, cache.fork()):
            found = session.forward(tokens[None, 150:], held)[0, 0]
            np.testing.assert_allclose(found, expected, atol=PACKAGE_LOGITS, rtol=0)
