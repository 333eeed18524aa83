"""How answers end: stop, length, cancellation, a full queue, draining and closing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.binding import Binding
from gptoss_onnx.runtime.engine import Engine, EngineClosedError, FinishReason, QueueFullError
from support.engine_sinks import LONGEST_WAIT, Kept, asked, submitted
from support.fake_package import VOCAB

ENDLESS = Sampling(stop_tokens=())
MANY = 10**6  # new tokens: more than any row holds


class Gate:
    """Holds the engine's thread before each run of the graph until it is let go, run by run."""

    def __init__(self) -> None:
        self._runs, self._here = threading.Semaphore(0), threading.Semaphore(0)
        self._open = False

    def wait(self) -> None:
        if not self._open:
            self._here.release()
            assert self._runs.acquire(timeout=LONGEST_WAIT)

    def arrive(self) -> None:
        """Wait until the thread stands before a run."""
        assert self._here.acquire(timeout=LONGEST_WAIT)

    def run(self, times: int = 1) -> None:
        """Let it run so many times, and wait until it stands before the next."""
        for _ in range(times):
            self._runs.release()
            self.arrive()

    def open(self) -> None:
        self._open = True
        self._runs.release(10**6)


@contextmanager
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate, run = Gate(), Binding.run

    def waiting(self: Binding, *arguments: Any) -> Any:
        gate.wait()
        return run(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Binding, "run", waiting)
        try:
            yield gate
        finally:
            gate.open()


def new_engine(session: Session, **sizes: Any) -> Engine:
    usual = {"slots": 2, "capacity": 90, "chunk": 4, "max_queue": 8, "prefix_bytes": 1 << 20}
    return Engine(session, **{**usual, **sizes})


def test_a_stop_token_is_passed_on_and_ends_the_answer(fake: Session) -> None:
    tokens = list(fake.generate([1, 2], ENDLESS, max_new_tokens=9))
    place = next(i for i, token in enumerate(tokens) if token not in tokens[:i] and i > 1)
    with new_engine(fake) as engine:
        sink, _ = submitted(engine, [1, 2], Sampling(stop_tokens=(tokens[place],)), 9)
        assert (sink.wait().tokens, sink.ends) == (tokens[: place + 1], ["stop"])


@pytest.mark.parametrize("after", [1, 4])
def test_a_sink_that_has_enough_ends_the_answer(fake: Session, after: int) -> None:
    with new_engine(fake) as engine:
        sink = Kept(stop_after=after)
        engine.submit(asked([1, 2], sink))
        assert (len(sink.wait().tokens), sink.ends) == (after, ["stop"])


@pytest.mark.parametrize(
    ("prompt", "most", "expected"), [(7, 0, 0), (7, 1, 1), (7, 5, 5), (89, MANY, 2), (90, MANY, 1)]
)
def test_an_answer_ends_at_its_limit_or_where_the_row_is_full(
    fake: Session, prompt: int, most: int, expected: int
) -> None:
    """The last token need not be in the row: as in `Session.generate`."""
    with new_engine(fake) as engine:
        sink, _ = submitted(engine, [1] * prompt, ENDLESS, most)
        assert (len(sink.wait().tokens), sink.ends) == (expected, ["length"])


def test_cancelling_ends_a_request_wherever_it_is(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated(monkeypatch) as gate, new_engine(fake, slots=1) as engine:
        active, ticket = submitted(engine, [1], ENDLESS, MANY)
        gate.arrive()
        gate.run(2)  # the prompt, and one step; the next step has begun
        prefilling, second = submitted(engine, [2] * 40, ENDLESS, MANY)
        queued, third = submitted(engine, [3], ENDLESS, MANY)
        last, _ = submitted(engine, [4], ENDLESS, 3)
        third.cancel()
        ticket.cancel()
        gate.run(2)  # that step ends, then the first chunk of the next prompt
        assert queued.wait().ends == active.wait().ends == ["cancelled"]
        assert len(active.tokens) == 3
        assert queued.tokens == []
        snapshot = engine.snapshot()
        assert (snapshot.active, snapshot.prefilling, snapshot.queued) == (0, 1, 1)
        engine.cancel(second)
        second.cancel()
        gate.run(1)
        assert prefilling.wait().ends == ["cancelled"]
        gate.open()
        assert last.wait().tokens == list(fake.generate([4], ENDLESS, max_new_tokens=3))
        ticket.cancel()  # it has ended: nothing happens
    assert [sink.ends for sink in (active, prefilling, queued)] == 3 * [["cancelled"]]
    assert engine.snapshot().finished == {"stop": 0, "length": 1, "cancelled": 3, "error": 0}


def test_running_rows_wait_for_one_chunk_at_most(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns: list[tuple[int, int]] = []
    run = Binding.run

    def seen(self: Binding, call: Any) -> Any:
        columns.append(call.input_ids.shape)
        return run(self, call)

    with gated(monkeypatch) as gate, new_engine(fake, slots=3) as engine:
        running, _ = submitted(engine, [1], ENDLESS, 40)
        gate.arrive()
        gate.run(3)
        monkeypatch.setattr(Binding, "run", seen)
        long, _ = submitted(engine, [2] * 30, ENDLESS, 2)
        other, _ = submitted(engine, [3] * 30, ENDLESS, 2)
        gate.open()
        running.wait(), long.wait(), other.wait()
    chunks = [index for index, (_, size) in enumerate(columns) if size > 1]
    assert len(chunks) == 16
    assert max(size for _, size in columns) == 4
    assert all(later - sooner >= 2 for sooner, later in pairwise(chunks))


def test_a_full_queue_refuses_and_says_when_to_come_again(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated(monkeypatch) as gate, new_engine(fake, slots=2, max_queue=3) as engine:
        sinks = [submitted(engine, [token], ENDLESS, 4)[0] for token in range(5)]
        with pytest.raises(QueueFullError, match="found 2 requests that run and 3 that wait") as e:
            engine.submit(asked([1], Kept()))
        assert 1 <= e.value.retry_after <= 60
        assert engine.snapshot().refused == 1
        gate.open()
        assert [sink.wait().ends for sink in sinks] == 5 * [["length"]]
        assert submitted(engine, [1])[0].wait().ends == ["length"]


def test_draining_lets_all_end_and_takes_no_more(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gated(monkeypatch) as gate, new_engine(fake, slots=2) as engine:
        sinks = [submitted(engine, [token], ENDLESS, 4)[0] for token in range(5)]
        assert not engine.drain(0.01)
        with pytest.raises(EngineClosedError, match="draining"):
            engine.submit(asked([1], Kept()))
        assert engine.snapshot().draining
        gate.open()
        assert engine.drain()
        assert [sink.ends for sink in sinks] == 5 * [["length"]]


def test_closing_ends_all(fake: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with gated(monkeypatch) as gate:
        engine = new_engine(fake, slots=1)
        sinks = [submitted(engine, [token] * 20, ENDLESS, MANY)[0] for token in range(3)]
        gate.arrive()
        closing = threading.Thread(target=engine.close)
        closing.start()
        gate.open()
        closing.join(LONGEST_WAIT)
        assert [sink.ends for sink in sinks] == 3 * [["cancelled"]]
        assert [sink.message for sink in sinks] == 3 * ["the engine was closed"]
        with pytest.raises(EngineClosedError, match="closed"):
            engine.submit(asked([1], Kept()))
        engine.close()
    assert engine.snapshot().active == 0


def test_a_sink_may_close_the_engine(fake: Session) -> None:
    engine = new_engine(fake)

    class Closing(Kept):
        def token(self, *arguments: Any) -> bool:
            engine.close()
            return super().token(*arguments)

    sink = Closing()
    engine.submit(asked([1], sink, max_new_tokens=MANY))
    engine.close()
    assert sink.ends == ["cancelled"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": ()}, "tokens: found shape (0,), expected at least one token"),
        ({"tokens": (1,) * 91}, "tokens: found 91, expected at most 90, what a row holds here"),
        ({"tokens": (VOCAB,)}, f"tokens[0]: found {VOCAB}, expected 0 to {VOCAB - 1}"),
        ({"tokens": (0.5,)}, "tokens: found float64, expected integers"),
        ({"max_new_tokens": -1}, "max_new_tokens: found -1"),
        ({"index": -1}, "index: found -1"),
        ({"logprobs": VOCAB + 1}, f"logprobs: found {VOCAB + 1}, expected an integer, 0 to"),
        ({"sampling": Sampling(stop=("x",))}, "sampling: found the stop text 'x', expected none"),
        ({"sampling": Sampling(stop_tokens=(VOCAB,))}, f"stop_tokens: found {VOCAB}"),
        ({"sampling": "greedy"}, "sampling: found str, expected Sampling"),
    ],
)
def test_wrong_requests_are_refused_at_once(
    fake: Session, changes: dict[str, Any], message: str
) -> None:
    sink = Kept()
    with new_engine(fake) as engine, pytest.raises(InputError) as error:
        engine.submit(replace(asked([1], sink), **changes))
    assert str(error.value).startswith(message)
    assert sink.ends == []


@pytest.mark.parametrize(
    "changes",
    [{"slots": 0}, {"capacity": 0}, {"chunk": 0}, {"max_queue": -1}, {"prefix_bytes": -1}],
)
def test_wrong_sizes_are_refused(fake: Session, changes: dict[str, int]) -> None:
    (name,) = changes
    with pytest.raises(InputError, match=f"{name}: found"):
        new_engine(fake, **changes)


def test_planned_bytes_are_those_of_the_caches_and_more(fake: Session) -> None:
    sizes = {"slots": 3, "capacity": 90, "chunk": 4}
    with Engine(fake, **sizes, max_queue=0, prefix_bytes=0) as engine:
        held = engine.snapshot().cache_bytes
    planned = Engine.plan_bytes(fake, **sizes, prefix_bytes=0)
    assert held < planned < 3 * held + 10_000
    assert Engine.plan_bytes(fake, **sizes, prefix_bytes=1000) == planned + 1000


class Watching:
    def __init__(self, fails: bool) -> None:
        self.seen: list[str] = []
        self.ends: list[tuple[FinishReason, int]] = []
        self.fails = fails

    def first_token(self, seconds: float) -> None:
        self.note("first", seconds)

    def prefill(self, seconds: float, tokens: int) -> None:
        self.note(f"prefill {tokens}", seconds)

    def step(self, seconds: float, rows: int) -> None:
        self.note(f"step {rows}", seconds)

    def finished(self, reason: FinishReason, **counts: Any) -> None:
        self.ends.append((reason, counts["generated_tokens"]))
        assert counts["prompt_tokens"] == 6 and counts["cached_tokens"] == 0
        self.note("finished", counts["seconds"])

    def note(self, what: str, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append(what)
        if self.fails:
            raise ValueError("an observer's own fault")


@pytest.mark.parametrize("fails", [False, True])
def test_an_observer_hears_what_happens_and_changes_nothing(fake: Session, fails: bool) -> None:
    watching = Watching(fails)
    with new_engine(fake, observe=watching) as engine:
        sink, _ = submitted(engine, np.arange(6).tolist(), ENDLESS, 3)
        assert sink.wait().ends == ["length"]
    assert watching.seen == [
        "prefill 4",
        "prefill 2",
        "first",
        "step 1",
        "finished",
        "step 1",
    ]
    assert watching.ends == [("length", 3)]
    snapshot = engine.snapshot()
    assert (snapshot.prompt_tokens, snapshot.generated_tokens, snapshot.steps) == (6, 3, 2)
