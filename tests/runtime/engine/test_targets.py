"""Packages of target ort: rows that go their own ways are batched, others are refused."""

import numpy as np
import pytest

from gptoss_onnx.errors import PackageError
from gptoss_onnx.package import Package
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.engine import Engine
from support.engine_sinks import submitted

SIZES = {"slots": 3, "capacity": 200, "chunk": 16}


def test_rows_of_target_ort_answer_as_alone(ort_package: Package) -> None:
    """The windows of 32 tokens wrap, and second turns begin with what was saved."""
    rng = np.random.default_rng(0)
    sampling = Sampling(stop_tokens=())
    with (
        Session.open(ort_package.folder, threads=1) as session,
        Engine(session, **SIZES, max_queue=9, prefix_bytes=1 << 26) as engine,
    ):
        prompts = [rng.integers(0, 2000, size).tolist() for size in (5, 60, 20, 90, 33)]
        sinks = [submitted(engine, prompt, sampling, 20)[0] for prompt in prompts]
        turns = [
            [*prompt, *sink.wait().tokens, 7, 8]
            for prompt, sink in zip(prompts, sinks, strict=True)
        ]
        again = [submitted(engine, turn, sampling, 10) for turn in turns]
        for prompt, sink in zip(prompts, sinks, strict=True):
            assert sink.tokens == list(session.generate(prompt, sampling, max_new_tokens=20))
        for turn, (sink, ticket) in zip(turns, again, strict=True):
            expected = list(session.generate(turn, sampling, max_new_tokens=10))
            assert sink.wait().tokens == expected
            assert ticket.cached_tokens == len(turn) - 3


def test_rows_that_go_together_are_refused(ort_int8_package: Package) -> None:
    with Session.open(ort_int8_package.folder, threads=1) as session:
        for call in (
            lambda: Engine(session, **SIZES, max_queue=9, prefix_bytes=0),
            lambda: Engine.plan_bytes(session, **SIZES, prefix_bytes=0),
        ):
            with pytest.raises(PackageError, match="whose rows go together; expected"):
                call()
