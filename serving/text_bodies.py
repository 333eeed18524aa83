"""TextBodies: answers in the shapes of OpenAI's completions."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from gptoss_onnx.runtime.engine import TokenLogprobs
from gptoss_onnx.serving.chat_bodies import usage_body
from gptoss_onnx.serving.collected import Collected
from gptoss_onnx.serving.logprobs import text_logprobs
from gptoss_onnx.serving.running import RunningAnswer, Usage
from gptoss_onnx.serving.state import ServerState
from gptoss_onnx.serving.streaming import DONE, PING, event_bytes
from gptoss_onnx.serving.text_request import TextRequest


class TextBodies:
    """The bodies of one request's answer, which share an id."""

    def __init__(self, state: ServerState, asked: TextRequest) -> None:
        self._state, self._asked = state, asked
        self._common = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",  # of chunks too
            "created": int(time.time()),
            "model": state.settings.model,
            "system_fingerprint": state.fingerprint,
        }

    def whole(self, answers: Sequence[Collected], usage: Usage) -> dict[str, Any]:
        """Return the body of an answer that does not stream."""
        choices = [
            self._entry(
                place,
                self._asked.echoed[place] + collected.answer.content,
                collected.logprobs,
                0,
                collected.finish_reason,
            )
            for place, collected in enumerate(answers)
        ]
        return {**self._common, "choices": choices, "usage": usage_body(usage)}

    async def chunks(self, running: RunningAnswer) -> AsyncIterator[bytes]:
        """Yield the events of a stream, as many at a time as have come."""
        include_usage = self._asked.include_usage
        usage: dict[str, Any] = {"usage": None} if include_usage else {}

        def chunk(entry: dict[str, Any]) -> bytes:
            return event_bytes({**self._common, **usage, "choices": [entry]})

        offsets = [0] * len(self._asked.choices)
        echoed = [
            chunk(self._entry(place, text, (), 0, None))
            for place, text in enumerate(self._asked.echoed)
            if text
        ]
        if echoed:
            yield b"".join(echoed)
        async for events in running.batches():
            written = []
            for event in events:
                text = "".join(delta.text for delta in event.deltas)
                if text or event.finish_reason is not None:
                    offset = offsets[event.choice]
                    offsets[event.choice] += len(text)
                    reason = event.finish_reason
                    entry = self._entry(event.choice, text, event.logprobs, offset, reason)
                    written.append(chunk(entry))
            yield b"".join(written) or PING
        if include_usage:
            last = {"choices": [], "usage": usage_body(running.usage())}
            yield event_bytes({**self._common, **last})
        yield DONE

    def _entry(
        self,
        place: int,
        text: str,
        logprobs: Sequence[TokenLogprobs],
        offset: int,
        reason: str | None,
    ) -> dict[str, Any]:
        told = None
        if self._asked.has_logprobs:
            told = text_logprobs(logprobs, self._state.token_bytes, offset)
        return {"index": place, "text": text, "logprobs": told, "finish_reason": reason}
