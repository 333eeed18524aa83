"""ResponseEvents: the events of one response in their order, and the response they add up to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from gptoss_onnx.serving.answers import AnswerDelta
from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.responses.growing import (
    Event,
    GrowingCall,
    GrowingItem,
    GrowingMessage,
    GrowingReasoning,
    Item,
    Logprob,
    Status,
)
from gptoss_onnx.serving.running import Usage


class ResponseEvents:
    """Turns the pieces of an answer into events; also where nobody listens to them, so that both
    ways end in the same response.

    Attributes:
        response: the response as far as its last event tells.
    """

    def __init__(self, response: Mapping[str, Any], with_logprobs: bool = False) -> None:
        self.response = dict(response)
        self._with_logprobs = with_logprobs
        self._items: list[Item] = []
        self._open: GrowingItem | None = None
        self._place = -1  # of the open item, as the reader of the answer counts
        self._sequence = 0

    def start(self) -> list[Event]:
        """Return the events before the first piece."""
        kinds = ("response.created", "response.in_progress")
        return self._numbered({"type": kind, "response": dict(self.response)} for kind in kinds)

    def push(self, delta: AnswerDelta, logprobs: Sequence[Logprob] = ()) -> list[Event]:
        """Take a piece of the answer, and return its events.

        An item ends where a piece of the next one comes. What belongs to none, such as the line
        end that a chat has between two messages, tells nothing.
        """
        if delta.item < 0:
            return []
        events: list[Event] = []
        if self._open is None or delta.item != self._place:
            events += self._close("completed")
            self._open, self._place = self._begin(delta), delta.item
            events.append(self._told("added", self._open.item("in_progress")))
            events += self._open.opened()
        if delta.text:
            events += self._open.add(delta.text, logprobs)
        return self._numbered(events)

    def finish(self, reason: Literal["stop", "length"], usage: Usage, now: int) -> list[Event]:
        """End the open item and the response, and return the last events; `now` is in seconds
        since 1970.
        """
        if reason == "length":
            details = {"reason": "max_output_tokens"}
            return self._end("incomplete", {"incomplete_details": details}, usage)
        return self._end("completed", {"completed_at": now}, usage)

    def fail(self, error: ApiError, usage: Usage) -> list[Event]:
        """End the response where the answer failed, and return the last events."""
        told = {"code": "server_error", "message": error.message}
        return self._end("failed", {"error": told}, usage)

    def _end(self, status: str, changes: dict[str, Any], usage: Usage) -> list[Event]:
        events = self._close("completed" if status == "completed" else "incomplete")
        self.response |= {
            "status": status,
            "output": self._items,
            "usage": _usage_document(usage),
            **changes,
        }
        events.append({"type": f"response.{status}", "response": dict(self.response)})
        return self._numbered(events)

    def _begin(self, delta: AnswerDelta) -> GrowingItem:
        place = len(self._items)
        if delta.kind == "tool_call":
            return GrowingCall(place, delta.name, delta.id)
        if delta.kind == "reasoning":
            return GrowingReasoning(place)
        return GrowingMessage(place, self._with_logprobs)

    def _close(self, status: Status) -> list[Event]:
        if self._open is None:
            return []
        events, item = self._open.closed(), self._open.item(status)
        events.append(self._told("done", item))
        self._items.append(item)
        self._open = None
        return events

    def _told(self, what: str, item: Item) -> Event:
        place = len(self._items)
        return {"type": f"response.output_item.{what}", "output_index": place, "item": item}

    def _numbered(self, events: Iterable[Event]) -> list[Event]:
        numbered = []
        for event in events:
            numbered.append({**event, "sequence_number": self._sequence})
            self._sequence += 1
        return numbered


def _usage_document(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
