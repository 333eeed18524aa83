"""collect: the whole answers of a request that does not stream."""

from dataclasses import dataclass, field
from typing import Literal

from gptoss_onnx.runtime.engine import TokenLogprobs
from gptoss_onnx.serving.answers import Answer
from gptoss_onnx.serving.running import RunningAnswer


@dataclass
class Collected:
    """One choice that has ended.

    Attributes:
        answer: what it says.
        finish_reason: the engine's.
        logprobs: of the tokens of its content.
    """

    answer: Answer
    finish_reason: Literal["stop", "length"]
    logprobs: list[TokenLogprobs] = field(default_factory=list)


async def collect(running: RunningAnswer, count: int) -> list[Collected]:
    """Return the choices once all of them have ended; raises ApiError as `batches` does."""
    logprobs: list[list[TokenLogprobs]] = [[] for _ in range(count)]
    reasons: dict[int, Literal["stop", "length"]] = {}
    async for events in running.batches():
        for event in events:
            logprobs[event.choice] += event.logprobs
            if event.finish_reason is not None:
                reasons[event.choice] = event.finish_reason
    return [
        Collected(running.answer(choice), reasons[choice], logprobs[choice])
        for choice in range(count)
    ]
