"""What fails in one request ends that request; what fails for all is forgotten, and the next
requests run.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.runtime import KVCache, Sampling, Session
from gptoss_onnx.runtime.engine import Engine, EngineClosedError
from support.engine_sinks import Kept, asked, submitted
from support.fake_package import write_fake_package

ENDLESS = Sampling(stop_tokens=())
POISON = 17  # a token of the fake package's
PROMPTS = [[1, 2, 3], [4] * 30, [5, 6], [7] * 11]

Forward = Callable[..., NDArray[np.float32]]


def new_engine(session: Session, **sizes: Any) -> Engine:
    usual = {"slots": 4, "capacity": 90, "chunk": 4, "max_queue": 8, "prefix_bytes": 1 << 20}
    return Engine(session, **{**usual, **sizes})


def patched(
    monkeypatch: pytest.MonkeyPatch,
    session: Session,
    forward: Callable[[Forward, NDArray[np.int64], KVCache, dict[str, Any]], NDArray[np.float32]],
) -> None:
    """Let `forward` stand before the session's own."""
    own = session.forward

    def replaced(ids: Any, cache: KVCache, *rest: Any, **more: Any) -> NDArray[np.float32]:
        return own(ids, cache, *rest) if rest else forward(own, ids, cache, more)

    monkeypatch.setattr(session, "forward", replaced)


def check_alone(session: Session, sinks: list[Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare answers to `PROMPTS` with what the session answers without the engine."""
    monkeypatch.undo()
    for prompt, sink in zip(PROMPTS, sinks, strict=True):
        most = len(sink.tokens)
        assert sink.tokens == list(session.generate(prompt, ENDLESS, max_new_tokens=most))
        assert sink.ends == ["length"]


def test_a_prompt_that_cannot_run_ends_alone(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(own: Forward, ids: Any, cache: KVCache, more: Any) -> Any:
        if POISON in ids and cache.batch == 1:
            raise RuntimeUnavailable("ONNX Runtime failed\nin two lines")
        return own(ids, cache, **more)

    patched(monkeypatch, fake, forward)
    with new_engine(fake) as engine:
        sinks = [submitted(engine, prompt, ENDLESS, 20)[0] for prompt in PROMPTS]
        bad, _ = submitted(engine, [1, 2, 3, 4, POISON, 6], ENDLESS, 20)
        assert bad.wait().ends == ["error"]
        assert bad.message == "ONNX Runtime failed in two lines"
        assert bad.tokens == []
        assert all(sink.wait() for sink in sinks)
        check_alone(fake, sinks, monkeypatch)


def test_rows_go_on_after_a_step_that_failed_once(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are run again from their tokens, and nobody sees it."""
    failures = [5]

    def forward(own: Forward, ids: Any, cache: KVCache, more: Any) -> Any:
        if cache.batch > 1 and more["rows"] == 4:
            failures[0] -= 1
            if failures[0] == 0:
                raise RuntimeUnavailable("no memory for the logits")
        return own(ids, cache, **more)

    patched(monkeypatch, fake, forward)
    with new_engine(fake) as engine:
        sampling = Sampling(temperature=300, seed=3, stop_tokens=())
        sinks = [submitted(engine, prompt, sampling, 40)[0] for prompt in PROMPTS]
        assert all(sink.wait() for sink in sinks)
        monkeypatch.undo()
        assert failures[0] < 0
    for prompt, sink in zip(PROMPTS, sinks, strict=True):
        assert sink.tokens == list(fake.generate(prompt, sampling, max_new_tokens=40))


def test_a_row_that_cannot_run_ends_alone(tmp_path: Path) -> None:
    """It overflows its float16 cache, and makes the step of all rows fail; each is run alone then.

    So does a prompt that overflows in the staging row.
    """
    folder = write_fake_package(tmp_path / "package", (0, 3, 8), "float16", scale=1000, sign=-1)
    with Session.open(folder, threads=1) as session, new_engine(session) as engine:
        sinks = [submitted(engine, prompt, ENDLESS, 30)[0] for prompt in PROMPTS[:3]]
        growing, _ = submitted(engine, [7] * 55, ENDLESS, 30)
        long, _ = submitted(engine, [8] * 70, ENDLESS, 30)
        later, _ = submitted(engine, PROMPTS[3], ENDLESS, 30)
        sinks.append(later)
        for bad in (growing, long):
            assert bad.wait().ends == ["error"]
            assert bad.message.startswith("cache: float16 overflowed")
        assert len(growing.tokens) == 11  # as far as it came
        assert long.tokens == []
        assert [sink.wait().ends for sink in sinks] == 4 * [["length"]]
        assert engine.drain()
        for prompt, sink in zip(PROMPTS, sinks, strict=True):
            assert sink.tokens == list(session.generate(prompt, ENDLESS, max_new_tokens=30))


def test_a_row_whose_steps_fail_twice_ends(fake: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(own: Forward, ids: Any, cache: KVCache, more: Any) -> Any:
        if more.get("rows", 1) > 1:
            raise RuntimeUnavailable("no memory for two")
        return own(ids, cache, **more)

    patched(monkeypatch, fake, forward)
    with new_engine(fake) as engine:
        sinks = [submitted(engine, prompt, ENDLESS, 40)[0] for prompt in PROMPTS]
        ended = [sink for sink in sinks if sink.wait().ends == ["error"]]
        assert len(ended) >= 2
        assert {sink.message for sink in ended} == {"no memory for two"}


def test_all_end_when_steps_keep_failing_and_the_next_ones_run(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(own: Forward, ids: Any, cache: KVCache, more: Any) -> Any:
        if cache.batch > 1:
            raise MemoryError("none left")
        return own(ids, cache, **more)

    with new_engine(fake) as engine:
        with monkeypatch.context() as patch:
            patched(patch, fake, forward)
            sinks = [submitted(engine, prompt, ENDLESS, 20)[0] for prompt in PROMPTS]
            assert [sink.wait().ends for sink in sinks] == 4 * [["error"]]
            assert {sink.message for sink in sinks} == {"MemoryError: none left"}
        sinks = [submitted(engine, prompt, ENDLESS, 20)[0] for prompt in PROMPTS]
        assert all(sink.wait() for sink in sinks)
        check_alone(fake, sinks, monkeypatch)


def test_weights_that_changed_end_requests_whose_turn_comes(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed() -> None:
        raise PackageError("model.safetensors: changed since it was opened")

    monkeypatch.setattr(fake, "check_weights", changed)
    with new_engine(fake) as engine:
        sink, _ = submitted(engine, [1])
        assert (sink.wait().ends, sink.message[:17]) == (["error"], "model.safetensors")


def test_logits_that_are_not_finite_end_their_row_alone(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(own: Forward, ids: Any, cache: KVCache, more: Any) -> Any:
        logits = own(ids, cache, **more)
        for row in range(len(logits)):
            if cache.batch > 1 and cache.row_tokens(row)[1] == POISON:
                logits[row] = np.nan
        return logits

    patched(monkeypatch, fake, forward)
    with new_engine(fake, slots=5) as engine:
        warm = Sampling(temperature=300, seed=3, stop_tokens=())
        sinks = [submitted(engine, prompt, ENDLESS, 20)[0] for prompt in PROMPTS]
        warmer = [submitted(engine, prompt, warm, 20)[0] for prompt in PROMPTS]
        bad, _ = submitted(engine, [1, POISON], warm, 20)
        assert bad.wait().ends == ["error"]
        assert bad.message.startswith("logits: the largest is nan")
        assert all(sink.wait() for sink in sinks + warmer)
        check_alone(fake, sinks, monkeypatch)
        # what may be broken is not kept for the next turn: its prompt alone is
        turn, ticket = submitted(engine, [1, POISON, *bad.tokens, 5])
        assert turn.wait().ends == ["length"]
        assert (len(bad.tokens), ticket.cached_tokens) == (1, 2)
        for prompt, sink in zip(PROMPTS, warmer, strict=True):
            assert sink.tokens == list(fake.generate(prompt, warm, max_new_tokens=20))


@pytest.mark.parametrize("fault", ["load_row", "move_row", "save_row"])
def test_after_a_fault_of_its_own_the_engine_begins_anew(
    fake: Session, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """And every request has ended once, also those that ended in the step that failed."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    with new_engine(fake) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(KVCache, fault, broken)
            first = [
                submitted(engine, prompt, ENDLESS, 9 + size)[0]
                for size, prompt in enumerate(PROMPTS)
            ]
            assert all(sink.wait() for sink in first)
            assert "RuntimeError: a bug" in [sink.message for sink in first]
        sinks = [submitted(engine, prompt, ENDLESS, 20)[0] for prompt in PROMPTS]
        assert all(sink.wait() for sink in sinks)
        check_alone(fake, sinks, monkeypatch)
    assert all(len(sink.ends) == 1 for sink in first)


def test_an_engine_whose_caches_are_lost_ends(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeUnavailable("KV cache: no memory")

    engine = new_engine(fake)
    with monkeypatch.context() as patch:
        patch.setattr(KVCache, "load_row", broken)
        patch.setattr(KVCache, "reset", broken)
        sinks = []
        with suppress(EngineClosedError):  # it may have ended before the last one is submitted
            for prompt in PROMPTS:
                sinks.append(submitted(engine, prompt, ENDLESS, 20)[0])
        assert sinks
        assert all(sink.wait().ends == ["error"] for sink in sinks)
        assert engine.drain(30)
        engine._thread.join(30)
        with pytest.raises(EngineClosedError, match=r"ended by a failure \(KV cache: no memory"):
            engine.submit(asked([1], Kept()))
    engine.close()


def test_a_request_that_comes_while_the_engine_ends_by_a_failure_hears_of_it(
    fake: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Kept] = []

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeUnavailable("KV cache: no memory")

    def broken_later(*_: Any, **__: Any) -> None:
        if not late:
            late.append(submitted(engine, PROMPTS[1])[0])
        broken()

    engine = new_engine(fake)
    with monkeypatch.context() as patch:
        patch.setattr(KVCache, "load_row", broken)
        patch.setattr(KVCache, "reset", broken_later)
        first, _ = submitted(engine, PROMPTS[0])
        assert first.wait().ends == ["error"]
        engine._thread.join(30)
    assert late[0].wait().ends == ["error"] and "no memory" in late[0].message
    engine.close()


def test_a_session_that_is_closed_ends_the_requests(fake: Session) -> None:
    with Session.open(fake.package.folder, threads=1) as session:
        engine = new_engine(session)
        running = [submitted(engine, [token], ENDLESS, 80)[0] for token in range(6)]
        running[-1].begun.wait(30)
    assert all(sink.wait().ends in (["error"], ["length"]) for sink in running)
    sink, _ = submitted(engine, [1])
    assert sink.wait().ends == ["error"]
    assert sink.message.startswith("session: found it closed")
    engine.close()
