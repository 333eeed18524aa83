"""read_messages: a chat's messages, checked, with each content as one text."""

from typing import Any

from gptoss_onnx.serving.errors import ApiError, wrong_field
from gptoss_onnx.serving.fields import Fields, shown

MOST_MESSAGES = 10_000
_MOST_PARTS, _MOST_CALLS = 1_000, 128
_LONGEST_NAME, _LONGEST_ID = 256, 256
_ROLES = ("system", "developer", "user", "assistant", "tool")
_TEXT_PARTS = {"text": "text", "refusal": "refusal"}  # kind of part: the field of its text
_REASONING = ("reasoning_content", "reasoning")


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """Return the messages as plain dictionaries: role, content (a text), and where given name,
    reasoning_content, tool_calls, tool_call_id.

    Parts of a content are joined with line ends. Reasoning comes back under the name that this
    server sends it under, or as `reasoning`. Raises ApiError naming the message and the field.
    """
    return [_message(message) for message in fields.objects("messages", MOST_MESSAGES, 1)]


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.one_of("role", _ROLES)
    message: dict[str, Any] = {"role": role, "content": _content(fields, role)}
    if fields.has("name"):
        message["name"] = fields.text("name", longest=_LONGEST_NAME)
    if role == "tool":
        message["tool_call_id"] = fields.text("tool_call_id", longest=_LONGEST_ID)
    if role == "assistant":
        for name in _REASONING:
            if fields.has(name):
                message["reasoning_content"] = fields.text(name)
                break
        calls = [_call(call) for call in fields.objects("tool_calls", _MOST_CALLS)]
        if calls:
            message["tool_calls"] = calls
        if fields.has("function_call"):
            raise ApiError(
                400,
                f"{fields.path('function_call')}: found an old form, expected tool_calls",
                param=fields.path("function_call"),
            )
    return message


def _content(fields: Fields, role: str) -> str:
    if not fields.has("content"):
        if role == "assistant":  # it may hold calls alone
            return ""
        raise fields.wrong("content", "a text or a list of text parts")
    if isinstance(fields.value["content"], str):
        return fields.text("content")
    if not isinstance(fields.value["content"], list):
        raise fields.wrong("content", "a text or a list of text parts")
    return "\n".join(_part(part) for part in fields.objects("content", _MOST_PARTS))


def _part(part: Fields) -> str:
    kind = part.value.get("type")
    if not isinstance(kind, str) or kind not in _TEXT_PARTS:
        raise wrong_field(
            part.path("type"), shown(kind), '"text": this model reads no pictures, sounds or files'
        )
    return part.text(_TEXT_PARTS[kind])


def _call(fields: Fields) -> dict[str, Any]:
    function = fields.needed_object("function")
    return {
        "id": fields.text("id", longest=_LONGEST_ID),
        "type": fields.one_of("type", ("function",), "function"),
        "function": {
            "name": function.text("name", longest=_LONGEST_NAME),
            "arguments": function.text("arguments", ""),
        },
    }
