"""Messages as chat templates want them, out of messages as SDKs send them.

What transformers does before its templates is done here too: keys without a value are dropped, and
thoughts are found under each of the names they have. Beyond it, content in parts becomes one text,
and arguments given as JSON text become what they say, which templates write as JSON once more.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import printable

Message = Mapping[str, Any]
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

DEPTH_LIMIT = 64  # lists and objects inside each other
SIZE_LIMIT = 64_000_000  # characters of text in one conversation, each value counting for one more
DIGITS_LIMIT = 10**40  # no JSON reader takes integers without bound
LONGEST_PLACE = 200  # characters of where a value stands, in an error
_REASONING = ("reasoning_content", "thinking", "reasoning")  # the first that has a value counts
_TEXT_PARTS = ("text", "input_text", "output_text")


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages made of dict, list, str, int, float, bool and None alone, for a template.

    Templates are a stranger's: they could call the methods of any other object. Raises InputError
    naming the place of what has no such form, and for content that is no text.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InputError(
            f"messages: found {type(messages).__name__}, expected a sequence of messages"
        )
    if not messages:
        raise InputError("messages: found none, expected at least one")
    plain = plain_data(list(messages), "messages")
    assert isinstance(plain, list)
    return [_message(message, f"messages[{index}]") for index, message in enumerate(plain)]


def plain_data(value: Any, where: str) -> Plain:
    """Return a copy of a value, made of JSON's types alone; raises InputError if it has another."""
    return _Copy().of(value, where, 0)


class _Copy:
    """Copies values, and counts how much text they hold together."""

    def __init__(self) -> None:
        self._size = 0

    def of(self, value: Any, where: str, depth: int) -> Plain:
        if depth > DEPTH_LIMIT:
            raise InputError(
                f"{where[:LONGEST_PLACE]}: nested more than {DEPTH_LIMIT} deep, expected less"
            )
        self._size += 1 + (len(value) if isinstance(value, str) else 0)
        if self._size > SIZE_LIMIT:
            raise InputError(
                f"{where}: found more than {SIZE_LIMIT} characters so far, expected fewer"
            )
        if value is None or isinstance(value, (bool, np.bool_)):
            return None if value is None else bool(value)
        if isinstance(value, str):
            return str.__str__(value)  # an enum's own methods stay behind
        if isinstance(value, (int, float, np.integer, np.floating)):
            return _number(value, where)
        if isinstance(value, (list, tuple)):
            return [
                self.of(entry, f"{where}[{index}]", depth + 1) for index, entry in enumerate(value)
            ]
        fields = _fields(value)
        if fields is None:
            raise InputError(
                f"{where}: found {type(value).__name__}, expected text, a number, true, false, "
                "null, a list, or "
                "a mapping"
            )
        copy: dict[str, Plain] = {}
        for key, entry in fields.items():
            if not isinstance(key, str):
                raise InputError(f"{where}: found the key {key!r:.80}, expected text")
            self._size += len(key)
            place = f"{where}.{printable(key)[:40]}" if len(where) < LONGEST_PLACE else where
            copy[str.__str__(key)] = self.of(entry, place, depth + 1)
        return copy


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """Return what a mapping, a dataclass, or an object of an SDK holds; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)  # pydantic, which the SDKs use
    fields = dump() if callable(dump) else None
    return fields if isinstance(fields, Mapping) else None


def _number(value: Any, where: str) -> int | float:
    if isinstance(value, (int, np.integer)):
        number = int(value)
        if abs(number) >= DIGITS_LIMIT:
            raise InputError(f"{where}: found an integer of more than 40 digits, expected fewer")
        return number
    real = float(value)
    if not math.isfinite(real):
        raise InputError(f"{where}: found {real}, expected a finite number")
    return real


def _message(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{where}: found {given!r:.80}, expected a mapping with role and content")
    message: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise InputError(f"{where}.role: found {role!r:.80}, expected a text such as 'user'")
    reasoning = next((message[key] for key in _REASONING if key in message), None)
    if reasoning is not None:
        # Published templates read `thinking`, others `reasoning_content`.
        thinking = _text(message.get("thinking", reasoning), f"{where}: reasoning")
        message = {
            **message,
            "thinking": thinking,
            "reasoning_content": _text(reasoning, f"{where}: reasoning"),
        }
    content = message.get("content")
    if isinstance(content, list) or (isinstance(content, dict) and role != "tool"):
        message["content"] = _text(content, f"{where}.content")
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise InputError(f"{where}.tool_calls: found {type(calls).__name__}, expected a list")
    if calls == []:
        # templates ask whether there is the key, not whether there is a call
        del message["tool_calls"]
    for call in calls or []:
        _read_arguments(call)
    return message


def _text(content: Any, where: str) -> str:
    """Return the text of content that may come in parts, a line each."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InputError(
            f"{where}: found {type(content).__name__}, expected a text or a list of text parts"
        )
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            raise InputError(
                f"{where}[{index}]: found a part of type {kind!r:.40}, expected a text part"
            )
        texts.append(text)
    return "\n".join(texts)


def _read_arguments(call: Any) -> None:
    """Replace arguments given as the text of a JSON object by the object; other text stays as it
    is.
    """
    function = call.get("function", call) if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments, str):
        return
    try:
        value = json.loads(arguments)
        if isinstance(value, dict):
            function["arguments"] = plain_data(value, "arguments")
    except (ValueError, RecursionError):  # a model wrote no JSON; its conversation goes on
        return
