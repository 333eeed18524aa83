"""ChatBodies: answers in the shapes of OpenAI's chat completions."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from gptoss_onnx.serving.answers import Answer, AnswerDelta
from gptoss_onnx.serving.choice_sink import AnswerEvent
from gptoss_onnx.serving.collected import Collected
from gptoss_onnx.serving.logprobs import chat_logprobs
from gptoss_onnx.serving.running import RunningAnswer, Usage
from gptoss_onnx.serving.state import ServerState
from gptoss_onnx.serving.streaming import DONE, PING, event_bytes


class ChatBodies:
    """The bodies of one request's answer, which share an id.

    Reasoning is told under two names, `reasoning_content` and `reasoning`: clients know the one or
    the other, and OpenAI has none.
    """

    def __init__(self, state: ServerState, has_logprobs: bool) -> None:
        self._state, self._has_logprobs = state, has_logprobs
        self._common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": state.settings.model,
            "system_fingerprint": state.fingerprint,
        }

    def whole(self, answers: Sequence[Collected], usage: Usage) -> dict[str, Any]:
        """Return the body of an answer that does not stream."""
        choices = [
            {
                "index": place,
                "message": _message(collected.answer),
                "logprobs": (
                    chat_logprobs(collected.logprobs, self._state.token_bytes)
                    if self._has_logprobs
                    else None
                ),
                "finish_reason": finish_reason(
                    collected.finish_reason, bool(collected.answer.tool_calls)
                ),
            }
            for place, collected in enumerate(answers)
        ]
        return {
            **self._common,
            "object": "chat.completion",
            "choices": choices,
            "usage": usage_body(usage),
        }

    async def chunks(
        self, running: RunningAnswer, count: int, include_usage: bool
    ) -> AsyncIterator[bytes]:
        """Yield the events of a stream, as many at a time as have come."""
        # With usage, every chunk but the last says that it has none, as OpenAI's do.
        usage: dict[str, Any] = {"usage": None} if include_usage else {}
        common = {**self._common, "object": "chat.completion.chunk", **usage}

        def chunk(choice: int, delta: dict[str, Any], **more: Any) -> bytes:
            entry = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}
            return event_bytes({**common, "choices": [entry | more]})

        first = {"role": "assistant", "content": ""}
        yield b"".join(chunk(place, first) for place in range(count))
        calling: set[int] = set()
        async for events in running.batches():
            written = []
            for event in events:
                if any(delta.kind == "tool_call" for delta in event.deltas):
                    calling.add(event.choice)
                told = self._logprobs(event)
                for delta in event.deltas:
                    # the event's logprobs go with its first content
                    more = told if delta.kind == "content" else {}
                    told = {} if more else told
                    written.append(chunk(event.choice, _delta(delta), **more))
                if event.finish_reason is not None:
                    reason = finish_reason(event.finish_reason, event.choice in calling)
                    written.append(chunk(event.choice, {}, finish_reason=reason))
            yield b"".join(written) or PING
        if include_usage:
            last = {"choices": [], "usage": usage_body(running.usage())}
            yield event_bytes({**common, **last})
        yield DONE

    def _logprobs(self, event: AnswerEvent) -> dict[str, Any]:
        if not self._has_logprobs or not event.logprobs:
            return {}
        return {"logprobs": chat_logprobs(event.logprobs, self._state.token_bytes)}


def usage_body(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def finish_reason(reason: str, is_calling: bool) -> str:
    """Return OpenAI's reason: an answer that ended by itself with calls waits for their results."""
    return "tool_calls" if reason == "stop" and is_calling else reason


def _message(answer: Answer) -> dict[str, Any]:
    # Calls alone have no content; an answer without any is an empty text.
    content = answer.content or (None if answer.tool_calls else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if answer.reasoning:
        message |= {"reasoning_content": answer.reasoning, "reasoning": answer.reasoning}
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.tool_calls
        ]
    return message


def _delta(delta: AnswerDelta) -> dict[str, Any]:
    if delta.kind == "content":
        return {"content": delta.text}
    if delta.kind == "reasoning":
        return {"reasoning_content": delta.text, "reasoning": delta.text}
    call: dict[str, Any] = {"index": delta.call, "function": {"arguments": delta.text}}
    if delta.id:
        call |= {"id": delta.id, "type": "function"}
        call["function"] = {"name": delta.name, "arguments": delta.text}
    return {"tool_calls": [call]}
