"""An answer while it runs, as the events of this API: told as they come, or kept to the end."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from gptoss_onnx.serving.choice_sink import AnswerEvent
from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.logprobs import chat_logprobs
from gptoss_onnx.serving.responses.events import ResponseEvents
from gptoss_onnx.serving.responses.growing import Event
from gptoss_onnx.serving.running import RunningAnswer
from gptoss_onnx.serving.streaming import PING, event_bytes
from gptoss_onnx.serving.token_bytes import TokenBytes

Keep = Callable[[dict[str, Any]], None]  # told of a response that has ended well


class Answering:
    """One running answer and the response that it becomes; either way of reading it ends in the
    same response.

    Args:
        response: as it begins, see `request.begun`.
        keep: is given the response before the client hears of its end, so that it is there when
            the client asks for it.
    """

    def __init__(
        self,
        running: RunningAnswer,
        response: dict[str, Any],
        names: TokenBytes,
        with_logprobs: bool,
        keep: Keep,
    ) -> None:
        self._running, self._names, self._keep = running, names, keep
        self._building = ResponseEvents(response, with_logprobs)

    async def response(self) -> dict[str, Any]:
        """Return the response once it has ended; raises ApiError where the answer failed."""
        async for _ in self._batches():
            pass
        return self._building.response

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the events as server-sent events; one that failed ends with `response.failed`."""
        yield _bytes(self._building.start())
        try:
            async for events in self._batches():
                yield _bytes(events) if events else PING
        except ApiError as error:
            yield _bytes(self._building.fail(error, self._running.usage()))

    def error_bytes(self, error: ApiError) -> bytes:
        """Return the last event of a stream that a defect of ours ends."""
        return _bytes(self._building.fail(error, self._running.usage()))

    async def _batches(self) -> AsyncIterator[list[Event]]:
        async for batch in self._running.batches():
            yield [event for answer in batch for event in self._events(answer)]

    def _events(self, answer: AnswerEvent) -> list[Event]:
        events: list[Event] = []
        logprobs = chat_logprobs(answer.logprobs, self._names)["content"]
        for delta in answer.deltas:
            is_content = delta.kind == "content" and delta.item >= 0
            events += self._building.push(delta, logprobs if is_content else ())
            logprobs = [] if is_content else logprobs
        if answer.finish_reason is not None:
            now = int(time.time())
            events += self._building.finish(answer.finish_reason, self._running.usage(), now)
            self._keep(self._building.response)
        return events


def _bytes(events: list[Event]) -> bytes:
    return b"".join(event_bytes(event, event["type"]) for event in events)
