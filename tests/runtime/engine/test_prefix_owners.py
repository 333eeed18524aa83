"""What is saved for one owner serves no other, so nobody learns what others have asked."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from gptoss_onnx.runtime import Session
from gptoss_onnx.runtime.engine import Engine
from gptoss_onnx.runtime.engine.memory import RESERVE
from gptoss_onnx.runtime.engine.prefixes import Prefixes
from gptoss_onnx.runtime.row_state import RowState
from support.engine_sinks import submitted
from support.fake_package import VOCAB

LONG = [place * place % VOCAB for place in range(200)]
OTHER = [17, 17]


def state(session: Session, tokens: Sequence[int]) -> RowState:
    with session.new_cache(1, len(tokens), RESERVE, chunk=16) as row:
        session.forward([list(tokens)], row)
        return row.save_row(0)


def open_engine(session: Session, prefixes: Sequence[RowState] = ()) -> Engine:
    return Engine(
        session,
        slots=2,
        capacity=300,
        chunk=16,
        max_queue=9,
        prefix_bytes=1 << 20,
        prefixes=prefixes,
    )


@pytest.fixture
def engine(fake: Session) -> Iterator[Engine]:
    with open_engine(fake) as opened:
        yield opened


def cached(engine: Engine, prompt: Sequence[int], owner: str) -> int:
    sink, ticket = submitted(engine, prompt, None, 3, owner=owner)
    assert sink.wait().ends == ["length"]
    return ticket.cached_tokens


def test_a_saved_row_serves_its_owner_alone(engine: Engine) -> None:
    assert cached(engine, LONG, "a") == 0
    cached(engine, OTHER, "a")  # the staging row holds something else now
    assert cached(engine, LONG, "b") == 0
    cached(engine, OTHER, "b")
    assert cached(engine, LONG, "a") == len(LONG) - 1
    cached(engine, OTHER, "a")
    assert cached(engine, LONG, "b") == len(LONG) - 1


def test_the_staging_row_serves_its_owner_alone(fake: Session) -> None:
    """Where nothing is saved it still holds the last prompt: all of it, or its beginning."""
    with Engine(fake, slots=2, capacity=300, chunk=16, max_queue=9, prefix_bytes=0) as engine:
        assert cached(engine, LONG[:40], "a") == 0
        assert cached(engine, LONG[:40], "b") == 0
        assert cached(engine, LONG[:50], "a") == 0
        assert cached(engine, LONG[:50], "a") == 50
        assert cached(engine, LONG[:60], "a") == 50


def test_what_was_given_at_the_start_serves_everybody(fake: Session) -> None:
    with open_engine(fake, [state(fake, LONG[:150])]) as engine:
        assert cached(engine, [*LONG[:150], 7], "a") == 150
        cached(engine, OTHER, "c")
        assert cached(engine, [*LONG[:150], 7], "b") == 150


def test_a_row_drops_no_row_of_another_owner(fake: Session) -> None:
    prefixes = Prefixes(fake.manifest.cache, 1 << 24)
    near, long = state(fake, LONG[:150]), state(fake, LONG[:180])
    prefixes.add(near, "a")
    prefixes.add(long, "b")  # it could be cut back to `near`
    prefixes.add(near, "c")
    assert len(prefixes) == 3
    prompt = np.array(LONG)
    assert [prefixes.find(prompt, owner).length for owner in "abcd"] == [150, 180, 150, 0]
    assert prefixes.find(prompt, "d").shared == 0  # nor is it told where they part
    prefixes.add(long)  # everybody's
    assert len(prefixes) == 1
    assert {prefixes.find(prompt, owner).length for owner in "abcd"} == {180}
