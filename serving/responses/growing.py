"""Items of an answer while they grow, and the events that tell of each piece.

Events come without `sequence_number`; `ResponseEvents` gives each its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from gptoss_onnx.serving.responses.ids import new_id

Event = dict[str, Any]
Item = dict[str, Any]
Logprob = Mapping[str, Any]  # token, logprob, bytes, top_logprobs: as in a chat completion
Status = Literal["in_progress", "completed", "incomplete"]


class GrowingItem(Protocol):
    """An item that takes pieces of text until it is closed."""

    def item(self, status: Status) -> Item:
        """Return the item as far as it has come."""

    def opened(self) -> list[Event]:
        """Return the events that follow `response.output_item.added`."""

    def add(self, text: str, logprobs: Sequence[Logprob]) -> list[Event]:
        """Take a piece of text and return its events."""

    def closed(self) -> list[Event]:
        """Return the events that come before `response.output_item.done`."""


class GrowingMessage:
    """What the model says to the user: one part of text."""

    def __init__(self, place: int, with_logprobs: bool) -> None:
        self._id, self._text = new_id("msg"), list[str]()
        self._logprobs: list[Logprob] | None = [] if with_logprobs else None
        self._where = {"item_id": self._id, "output_index": place, "content_index": 0}

    def item(self, status: Status) -> Item:
        """Return the message; one that has just begun has no part yet."""
        parts = [] if status == "in_progress" else [self._part()]
        return {
            "id": self._id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": parts,
        }

    def opened(self) -> list[Event]:
        """Return the event of the part that begins."""
        part = {"type": "output_text", "text": "", "annotations": []}
        return [{"type": "response.content_part.added", **self._where, "part": part}]

    def add(self, text: str, logprobs: Sequence[Logprob]) -> list[Event]:
        """Take a piece of text and the log probabilities of the tokens that it is made of."""
        self._text.append(text)
        if self._logprobs is not None:
            self._logprobs += logprobs
        told = _told(logprobs if self._logprobs is not None else ())
        kind = "response.output_text.delta"
        return [{"type": kind, **self._where, "delta": text, "logprobs": told}]

    def closed(self) -> list[Event]:
        """Return the events of the text and of the part that end."""
        text, told = "".join(self._text), _told(self._logprobs or ())
        kind = "response.output_text.done"
        return [
            {"type": kind, **self._where, "text": text, "logprobs": told},
            {"type": "response.content_part.done", **self._where, "part": self._part()},
        ]

    def _part(self) -> dict[str, Any]:
        logprobs = {} if self._logprobs is None else {"logprobs": list(self._logprobs)}
        text = "".join(self._text)
        return {"type": "output_text", "text": text, "annotations": [], **logprobs}


class GrowingReasoning:
    """What the model thinks, in the form of open models: parts of `reasoning_text`, no summary."""

    def __init__(self, place: int) -> None:
        self._id, self._text = new_id("rs"), list[str]()
        self._where = {"item_id": self._id, "output_index": place, "content_index": 0}

    def item(self, status: Status) -> Item:
        """Return the item; one that has just begun has no part yet."""
        parts = [] if status == "in_progress" else [self._part()]
        return {
            "id": self._id,
            "type": "reasoning",
            "status": status,
            "summary": [],
            "content": parts,
        }

    def opened(self) -> list[Event]:
        """Return the event of the part that begins."""
        part = {"type": "reasoning_text", "text": ""}
        return [{"type": "response.content_part.added", **self._where, "part": part}]

    def add(self, text: str, logprobs: Sequence[Logprob]) -> list[Event]:
        """Take a piece of the thoughts, whose log probabilities the API has no place for."""
        self._text.append(text)
        return [{"type": "response.reasoning_text.delta", **self._where, "delta": text}]

    def closed(self) -> list[Event]:
        """Return the events of the text and of the part that end."""
        text = "".join(self._text)
        return [
            {"type": "response.reasoning_text.done", **self._where, "text": text},
            {"type": "response.content_part.done", **self._where, "part": self._part()},
        ]

    def _part(self) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": "".join(self._text)}


class GrowingCall:
    """A call of a function; its arguments are what the model wrote, be it an object or not."""

    def __init__(self, place: int, name: str, call_id: str) -> None:
        self._id, self._arguments = new_id("fc"), list[str]()
        self._name, self._call_id = name, call_id
        self._where = {"item_id": self._id, "output_index": place}

    def item(self, status: Status) -> Item:
        """Return the call with the arguments that have come."""
        return {
            "id": self._id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": "".join(self._arguments),
        }

    def opened(self) -> list[Event]:
        """Return nothing: a call has no parts."""
        return []

    def add(self, text: str, logprobs: Sequence[Logprob]) -> list[Event]:
        """Take a piece of the arguments."""
        self._arguments.append(text)
        kind = "response.function_call_arguments.delta"
        return [{"type": kind, **self._where, "delta": text}]

    def closed(self) -> list[Event]:
        """Return the event of the whole arguments."""
        kind = "response.function_call_arguments.done"
        return [{"type": kind, **self._where, "arguments": "".join(self._arguments)}]


def _told(logprobs: Sequence[Logprob]) -> list[dict[str, Any]]:
    """Return log probabilities as events tell them, without the bytes that items have."""
    return [
        {
            "token": entry["token"],
            "logprob": entry["logprob"],
            "top_logprobs": [
                {"token": top["token"], "logprob": top["logprob"]} for top in entry["top_logprobs"]
            ],
        }
        for entry in logprobs
    ]
