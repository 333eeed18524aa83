"""RunningAnswer: the choices of one request while the engine works on them, as events.

with RunningAnswer(engine, choices, settings) as running:
    async for events in running.batches():
        ...
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.engine import (
    Engine,
    EngineClosedError,
    GenerationRequest,
    QueueFullError,
    Ticket,
)
from gptoss_onnx.serving.answers import Answer
from gptoss_onnx.serving.choice_sink import AnswerEvent, Choice, ChoiceSink
from gptoss_onnx.serving.errors import INVALID, SERVER, ApiError, too_many, unavailable
from gptoss_onnx.serving.mailbox import Mailbox
from gptoss_onnx.serving.settings import ServerSettings


@dataclass(frozen=True)
class Usage:
    """Tokens of one request: `cached_tokens` are of the prompt, `reasoning_tokens` of answers."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


class RunningAnswer(Closing):
    """All choices of one request; leaving it, or `close`, cancels what still runs.

    Used on the event loop. Making it submits all choices, or none: raises ApiError 429 where the
    queue is full, 503 where the engine ends, 400 for what the engine refuses. `owner` is that of
    `GenerationRequest`.
    """

    def __init__(
        self,
        engine: Engine,
        choices: Sequence[Choice],
        settings: ServerSettings,
        owner: str = "",
    ) -> None:
        self._engine, self._choices, self._settings = engine, choices, settings
        self._deadline = asyncio.get_running_loop().time() + settings.request_seconds
        self._mailbox: Mailbox[AnswerEvent] = Mailbox(settings.max_pending_bytes)
        self._sinks = [
            ChoiceSink(place, choice, self._mailbox) for place, choice in enumerate(choices)
        ]
        self._tickets: list[Ticket] = []
        try:
            for choice, sink in zip(choices, self._sinks, strict=True):
                self._tickets.append(engine.submit(_request(choice, sink, owner)))
        except QueueFullError as error:
            self.close()
            raise too_many(str(error), error.retry_after) from error
        except EngineClosedError as error:
            self.close()
            raise unavailable("the server is stopping; send the request again later") from error
        except InputError as error:
            self.close()
            raise ApiError(400, str(error), INVALID) from error

    def close(self) -> None:
        """Cancel what still runs or waits; its slots are free within one step."""
        for ticket in self._tickets:
            self._engine.cancel(ticket)

    async def batches(self) -> AsyncIterator[list[AnswerEvent]]:
        """Yield the events that came since the last time, until all choices have ended.

        A batch without events says that nothing came in `ping_seconds`. Raises ApiError when a
        choice ends by an error, when the client reads too slowly, when the answer takes longer than
        `request_seconds`, and when the server stops.
        """
        loop = asyncio.get_running_loop()
        open_choices = len(self._choices)
        while open_choices:
            left = self._deadline - loop.time()
            if left <= 0:
                seconds = self._settings.request_seconds
                raise ApiError(504, f"the answer took longer than {seconds:g} s", SERVER, "timeout")
            events = await self._mailbox.take(min(left, self._settings.ping_seconds))
            failed = next((event for event in events if event.failure is not None), None)
            if failed is not None:
                events = events[: events.index(failed)]
            open_choices -= sum(event.finish_reason is not None for event in events)
            if events or failed is None:
                yield events
            if failed is not None:
                assert failed.failure is not None
                raise failed.failure

    def answer(self, choice: int) -> Answer:
        """Return the whole answer of a choice that has ended."""
        return self._choices[choice].reader.answer()

    def usage(self) -> Usage:
        """Count the tokens so far. A prompt counts once, however many choices continue it."""
        firsts = [
            (choice, ticket)
            for choice, ticket in zip(self._choices, self._tickets, strict=True)
            if choice.index == 0
        ]
        return Usage(
            prompt_tokens=sum(choice.tokens.size for choice, _ in firsts),
            cached_tokens=sum(ticket.cached_tokens for _, ticket in firsts),
            completion_tokens=sum(sink.generated for sink in self._sinks),
            reasoning_tokens=sum(sink.reasoned for sink in self._sinks),
        )


def _request(choice: Choice, sink: ChoiceSink, owner: str) -> GenerationRequest:
    return GenerationRequest(
        tokens=choice.tokens,
        sampling=choice.sampling,
        max_new_tokens=choice.max_new_tokens,
        index=choice.index,
        logprobs=choice.logprobs,
        constraint=choice.constraint,
        sink=sink,
        owner=owner,
    )
