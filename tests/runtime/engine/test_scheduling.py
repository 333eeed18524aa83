"""Whatever is submitted and cancelled in whatever order, every request ends once and rightly.

The scheduler runs here without its thread, so that Hypothesis decides what comes between two steps.
"""

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.engine import GenerationRequest, QueueFullError
from gptoss_onnx.runtime.engine.entry import Entry
from gptoss_onnx.runtime.engine.inbox import Inbox
from gptoss_onnx.runtime.engine.prefixes import Prefixes
from gptoss_onnx.runtime.engine.reports import Reports
from gptoss_onnx.runtime.engine.rows import ActiveRows
from gptoss_onnx.runtime.engine.scheduler import Scheduler
from gptoss_onnx.runtime.engine.staging import Staging
from support.engine_sinks import Kept, asked
from support.fake_package import VOCAB

SLOTS, CAPACITY, CHUNK, QUEUE = 3, 100, 5, 6

# Prompts that begin alike and part somewhere are what prefixes are about; long ones wrap the rings.
LONG = tuple(place * place % VOCAB for place in range(CAPACITY))
TOKENS = st.builds(
    lambda length, tail: [*LONG[:length], *tail],
    st.integers(0, CAPACITY - 4) | st.sampled_from([70, 75, 80]),
    st.lists(st.integers(0, 2), min_size=1, max_size=4),
)


class Ordered(Kept):
    """Notes in a list that several share when its first token comes."""

    def __init__(self, order: list[Kept], stop_after: int | None) -> None:
        super().__init__(stop_after)
        self.order = order

    def token(self, *arguments: Any) -> bool:
        if not self.tokens:
            self.order.append(self)
        return super().token(*arguments)


class Machine(RuleBasedStateMachine):
    """Submits, cancels and steps in any order."""

    session: Session
    prefix_bytes: int
    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.inbox = Inbox(SLOTS, QUEUE)
        self.reports = Reports(None)
        session = self.session
        self.prefixes = Prefixes(session.manifest.cache, self.prefix_bytes)
        self.scheduler = Scheduler(
            session,
            self.inbox,
            Staging(session, CAPACITY, CHUNK, self.prefixes),
            ActiveRows(session, SLOTS, CAPACITY, self.prefixes),
            self.reports,
            CAPACITY,
        )
        self.kept: list[tuple[GenerationRequest, Kept, Entry]] = []
        self.order: list[Kept] = []  # as their first tokens came

    @rule(
        target=entries,
        tokens=TOKENS,
        seed=st.none() | st.integers(0, 3),
        index=st.integers(0, 2),
        most=st.integers(0, 30),
        stop_after=st.none() | st.integers(1, 9),
        choices=st.integers(1, 2),
    )
    def submit(
        self,
        tokens: list[int],
        seed: int | None,
        index: int,
        most: int,
        stop_after: int | None,
        choices: int,
    ) -> object:
        sampling = Sampling(
            temperature=0 if seed is None else 300, seed=seed, stop_tokens=(VOCAB - 1,)
        )
        taken = []
        for choice in range(choices):
            sink = Ordered(self.order, stop_after)
            request = asked(tokens, sink, sampling, most, index=index + choice)
            entry = Entry.of(request, self.session, CAPACITY)
            entry.when_ended(self.reports.ended, self.inbox.leave)
            inside = sum(not kept.ends for _, kept, _ in self.kept)
            try:
                self.inbox.put(entry, lambda: 1)
            except QueueFullError:
                assert inside == SLOTS + QUEUE
                continue
            assert inside < SLOTS + QUEUE
            self.kept.append((request, sink, entry))
            taken.append(entry)
        return multiple(*taken)

    @rule(entry=entries)
    def cancel(self, entry: Entry) -> None:
        had_ended = entry.ended
        entry.ticket.cancel()
        self.scheduler.step()
        assert entry.ended == (had_ended or "cancelled")
        assert entry not in self.scheduler.rows.entries

    @rule(times=st.integers(1, 12))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.scheduler.step()

    @invariant()
    def slots_hold_what_runs(self) -> None:
        entries = self.scheduler.rows.entries
        assert len(entries) <= SLOTS
        for row, entry in enumerate(entries):
            assert entry.ended is None
            held = self.scheduler.rows._cache.row_tokens(row)
            assert [*held, entry.generated[-1]] == entry.context.tolist()
        assert self.prefixes.nbytes <= self.prefix_bytes

    def teardown(self) -> None:
        for _ in range(10_000):
            if not self.scheduler.busy and not len(self.inbox):
                break
            self.scheduler.step()
        else:
            pytest.fail("the scheduler does not come to an end")
        assert self.inbox.wait_until_empty(0)
        assert self.order == [sink for _, sink, _ in self.kept if sink.tokens]  # first come first
        for request, sink, entry in self.kept:
            assert sink.ends == [entry.ended]
            self.check(request, sink)
        assert sum(self.reports.finished.values()) == len(self.kept)
        self.scheduler.close()

    def check(self, request: GenerationRequest, sink: Kept) -> None:
        sampling = request.sampling
        seed = None if sampling.seed is None else sampling.seed + request.index
        tokens, reason = answer(self.session, request.tokens, seed, request.max_new_tokens)
        if sink.stop_after is not None and len(tokens) >= sink.stop_after:
            tokens, reason = tokens[: sink.stop_after], "stop"
        if sink.ends == ["cancelled"]:
            assert sink.tokens == tokens[: len(sink.tokens)]
        else:
            assert (sink.tokens, sink.ends) == (tokens, [reason])


@cache
def answer(
    session: Session, prompt: tuple[int, ...], seed: int | None, most: int
) -> tuple[list[int], str | None]:
    sampling = Sampling(temperature=0 if seed is None else 300, seed=seed, stop_tokens=(VOCAB - 1,))
    with session.new_cache(1, CAPACITY) as row:
        generation = session.generate(list(prompt), sampling, max_new_tokens=most, cache=row)
        return list(generation), generation.finish_reason


@pytest.mark.parametrize("prefix_bytes", [0, 8000, 1 << 20])
def test_any_order_of_events(fake: Session, prefix_bytes: int) -> None:
    class Here(Machine):
        session = fake

    Here.prefix_bytes = prefix_bytes
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
