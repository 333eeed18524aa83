"""What a request's own sink and constraint raise ends that request, and no other."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.engine import Constraint, Engine
from gptoss_onnx.runtime.engine.refusals import told
from support.engine_sinks import Kept, asked, submitted

ENDLESS = Sampling(stop_tokens=())
PROMPTS = [[1, 2, 3], [4] * 30, [5, 6], [7] * 11]


def new_engine(session: Session) -> Engine:
    return Engine(session, slots=5, capacity=90, chunk=4, max_queue=8, prefix_bytes=1 << 20)


class Faulty(Kept):
    """A sink and constraint that raises in one of its calls."""

    def __init__(self, where: str, error: type[BaseException] = KeyError) -> None:
        super().__init__()
        self.where, self.error = where, error

    def fail(self, where: str) -> None:
        if where == self.where and len(self.tokens) in (2, 8):
            raise self.error("a fault")

    def mask(self, logits: NDArray[np.float32]) -> None:
        self.fail("mask")

    def accept(self, token: int) -> None:
        self.fail("accept")

    def token(self, *arguments: Any) -> bool:
        self.fail("token")
        return super().token(*arguments)

    def finish(self, *arguments: Any) -> None:
        super().finish(*arguments)
        self.fail("finish")


@pytest.mark.parametrize("error", [KeyError, BaseException])  # a panic of Rust is none of Exception
@pytest.mark.parametrize("where", ["mask", "accept", "token", "finish"])
def test_a_sink_or_constraint_that_raises_ends_its_own_request(
    fake: Session, where: str, error: type[BaseException]
) -> None:
    faulty = Faulty(where, error)
    constraint: Constraint = faulty
    with new_engine(fake) as engine:
        sinks = [submitted(engine, prompt, ENDLESS, 20)[0] for prompt in PROMPTS]
        engine.submit(asked([9, 9], faulty, constraint=constraint))
        assert all(sink.wait() for sink in [*sinks, faulty])
        for prompt, sink in zip(PROMPTS, sinks, strict=True):
            assert sink.tokens == list(fake.generate(prompt, ENDLESS, max_new_tokens=20))
            assert sink.ends == ["length"]
        assert engine.drain()
    if where == "finish":
        assert faulty.ends == ["length"]
    else:
        assert (faulty.ends, faulty.message) == (["error"], told(error("a fault")))
        assert len(faulty.tokens) == 2


def test_a_constraint_that_allows_nothing_is_an_error(fake: Session) -> None:
    class Nothing(Faulty):
        def mask(self, logits: NDArray[np.float32]) -> None:
            logits[:] = -np.inf

    sink = Nothing("nowhere")
    with new_engine(fake) as engine:
        engine.submit(asked([1], sink, constraint=sink))
        other, _ = submitted(engine, [1])
        assert sink.wait().ends == ["error"]
        assert other.wait().ends == ["length"]
