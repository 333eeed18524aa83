"""Threads: what is in use refuses a second caller at once, and a session that closes lets running
calls finish.

The graph is held in the middle of a run by an event, so nothing here depends on time.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.runtime import KVCache, Sampling, Session
from gptoss_onnx.runtime.binding import Binding
from support.fake_package import VOCAB, expected_logits, write_fake_package

WINDOWS = (0, 3, 8)
ENDLESS = Sampling(stop_tokens=())
LONGEST_WAIT = 30  # seconds after which a test gives up instead of hanging


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session.open(write_fake_package(tmp_path / "package", WINDOWS), threads=1) as opened:
        yield opened


class Held:
    """The first run of the graph waits, after it has begun, until `release` is called."""

    def __init__(self) -> None:
        self.begun, self._go = threading.Event(), threading.Event()

    def wait(self) -> None:
        if not self.begun.is_set():
            self.begun.set()
            assert self._go.wait(LONGEST_WAIT)

    def release(self) -> None:
        self._go.set()


@contextmanager
def held_run(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]
) -> Iterator[tuple[Held, Future[Any]]]:
    """Run `call` on another thread and yield while it is inside the graph; it is released at the
    end at last.
    """
    held, run = Held(), Binding.run

    def waiting(self: Binding, *arguments: Any) -> Any:
        held.wait()
        return run(self, *arguments)

    monkeypatch.setattr(Binding, "run", waiting)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        try:
            assert held.begun.wait(LONGEST_WAIT)
            yield held, future
        finally:
            held.release()


USES: dict[str, Callable[[Session, KVCache], Any]] = {
    "forward": lambda session, cache: session.forward([[3]], cache),
    "generate": lambda session, cache: next(session.generate([3], ENDLESS, cache=cache)),
    "rewind": lambda _, cache: cache.rewind(1),
    "reset": lambda _, cache: cache.reset(),
    "fork": lambda _, cache: cache.fork(),
    "grow": lambda _, cache: cache.grow(99),
    "save_row": lambda _, cache: cache.save_row(0),
    "load_row": lambda session, cache: cache.load_row(0, session.new_cache(1, 1).save_row(0)),
    "close": lambda _, cache: cache.close(),
}


@pytest.mark.parametrize("use", USES)
def test_a_cache_in_use_refuses_a_second_caller(
    session: Session, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    cache = session.new_cache(1, 20)
    session.forward([[1]], cache)
    with held_run(monkeypatch, lambda: session.forward([[2]], cache)) as (held, running):
        with pytest.raises(
            InputError, match="cache: found it in use by another call, expected one call at a time"
        ):
            USES[use](session, cache)
        assert cache.lengths.tolist() == [1]  # looking is allowed
        assert cache.tokens[0].tolist() == [1]
        held.release()
        np.testing.assert_array_equal(running.result()[0, 0], expected_logits([1, 2], WINDOWS, 1))
    assert cache.capacity == 20
    np.testing.assert_array_equal(
        session.forward([[3]], cache)[0, 0], expected_logits([1, 2, 3], WINDOWS, 2)
    )
    USES[use](session, cache)  # and now it may be used


def test_a_cache_in_use_refuses_another_session_of_its_package(
    session: Session, monkeypatch: Any
) -> None:
    cache = session.new_cache(1, 20)
    with (
        Session.open(session.package.folder, threads=1) as other,
        held_run(monkeypatch, lambda: session.forward([[2]], cache)),
        pytest.raises(InputError, match="cache: found it in use"),
    ):
        other.forward([[3]], cache)


def test_forks_are_used_on_their_own(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = session.new_cache(1, 20)
    session.forward([[1]], cache)
    twin = cache.fork()
    with held_run(monkeypatch, lambda: session.forward([[2]], cache)):
        np.testing.assert_array_equal(
            session.forward([[4]], twin)[0, 0], expected_logits([1, 4], WINDOWS, 1)
        )
    assert [row.tolist() for row in cache.tokens + twin.tokens] == [[1, 2], [1, 4]]


def test_a_failed_call_gives_the_cache_back(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = session.new_cache(1, 20)
    session.forward([[1, 2]], cache)

    def fail(*_: Any) -> Any:
        raise RuntimeUnavailable("ONNX Runtime failed")

    with monkeypatch.context() as patch:
        patch.setattr(Binding, "run", fail)
        with pytest.raises(RuntimeUnavailable):
            session.forward([[3]], cache)
    assert cache.tokens[0].tolist() == [1, 2]
    np.testing.assert_array_equal(
        session.forward([[3]], cache)[0, 0], expected_logits([1, 2, 3], WINDOWS, 2)
    )


@pytest.mark.parametrize("closing", [False, True], ids=["next", "close"])
def test_a_generation_in_use_refuses_a_second_caller(
    session: Session, monkeypatch: pytest.MonkeyPatch, closing: bool
) -> None:
    alone = list(session.generate([1, 2], ENDLESS, max_new_tokens=4))
    generation = session.generate([1, 2], ENDLESS, max_new_tokens=4)
    with held_run(monkeypatch, lambda: list(generation)) as (held, running):
        with pytest.raises(InputError, match="generation: found it in use by another call"):
            generation.close() if closing else next(generation)
        held.release()
        assert running.result() == alone


def test_closing_a_session_lets_running_calls_finish(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, other = session.new_cache(2, 40, chunk=2), session.new_cache(1, 40)
    session.forward([[1], [2]], cache)
    cache.rewind([0, 1])
    tokens = [1, 2, 3, 4, 5, 6, 7]
    with held_run(monkeypatch, lambda: session.forward([tokens], cache, rows=1)) as (held, running):
        assert sorted(cache.bindings) == [1, 2]
        session.close()
        for use in (lambda: session.forward([[1]], other), session.check_weights):
            with pytest.raises(InputError, match="session: found it closed"):
                use()
        held.release()
        np.testing.assert_array_equal(running.result()[0, 0], expected_logits(tokens, WINDOWS, 6))
    assert not cache.bindings
    session.close()  # once more is nothing


def test_a_generation_ends_with_its_session(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = session.generate([1, 2], ENDLESS, max_new_tokens=9)
    with held_run(monkeypatch, lambda: next(generation)) as (held, running):
        session.close()
        held.release()
        assert isinstance(running.result(), int)
    with pytest.raises(InputError, match="session: found it closed"):
        next(generation)


def test_sessions_close_while_other_threads_begin(tmp_path: Path) -> None:
    """The list of bound caches changes under the hands of close(), which must not mind."""
    package = write_fake_package(tmp_path / "package", WINDOWS)
    for _ in range(5):
        session = Session.open(package, threads=1)
        barrier = threading.Barrier(5)

        def work(session: Session = session, barrier: threading.Barrier = barrier) -> str:
            barrier.wait(LONGEST_WAIT)
            try:
                for count in range(500):
                    session.forward([[count % VOCAB]], session.new_cache(1, 2))
            except InputError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(work) for _ in range(4)]
            barrier.wait(LONGEST_WAIT)
            session.close()
            assert {end.result()[:24] for end in ends} <= {"session: found it closed", ""}


def test_caches_are_bound_by_several_sessions_at_once(tmp_path: Path) -> None:
    """Each binds the rows it runs, while others close: no cache keeps a graph that was closed."""
    package = write_fake_package(tmp_path / "package", WINDOWS)
    with Session.open(package, threads=1) as stays:
        cache = stays.new_cache(3, 40)
        for rows in (1, 3, 2):
            stays.forward([[1]] * rows, cache, rows=rows)
            with Session.open(package, threads=1) as other:
                other.forward([[2]] * rows, cache, rows=rows)
                assert list(cache.bindings) == [rows]
            assert not cache.bindings
        assert [row.tolist() for row in cache.tokens] == [[1, 2] * 3, [1, 2] * 2, [1, 2]]
