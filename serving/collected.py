"""collect: the whole answers of a request that does not stream."""

from dataclasses import dataclass, field
from typing import Literal

from gptoss_onnx.runtime.engine import TokenLogprobs
from gptoss_onnx.serving.answers import Answer
from gptoss_onnx.serving.errors import ApiError
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


async def collect(running: RunningAnswer, count: int, most: int) -> list[Collected]:
    """Return the choices once all of them have ended.

    Raises ApiError as `batches` does, and for texts of more than `most` characters together. How
    much their log-probabilities may take is settled before: see `prepare.collected_room`.
    """
    size = 0
    logprobs: list[list[TokenLogprobs]] = [[] for _ in range(count)]
    reasons: dict[int, Literal["stop", "length"]] = {}
    async for events in running.batches():
        for event in events:
            logprobs[event.choice] += event.logprobs
            size += event.text_size
            if event.finish_reason is not None:
                reasons[event.choice] = event.finish_reason
        if size > most:
            raise ApiError(
                400,
                f"the answer: found more than {most} characters in all its choices, expected "
                "fewer: ask for fewer choices, or for a stream",
                code="answer_too_large",
            )
    return [
        Collected(running.answer(choice), reasons[choice], logprobs[choice])
        for choice in range(count)
    ]
