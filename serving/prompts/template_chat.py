"""A conversation for the package's own chat template, which models without harmony have."""

from collections.abc import Mapping, Sequence
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.serving.prompts.messages import ChatMessage, PastCall
from gptoss_onnx.serving.prompts.tools import ToolSpec


def template_tokens(
    tokenizer: Tokenizer,
    instructions: str | None,
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolSpec],
    variables: Mapping[str, Any],
) -> list[int]:
    """Return the ids of a conversation, and of the beginning of a reply.

    Developers' messages are the system's there, and what comes first of those is one message:
    templates look for one alone. Raises InputError for tools that the template has no place for,
    and whatever `Tokenizer.encode_chat` does.
    """
    if tools and not tokenizer.chat_template.reads("tools"):
        raise InputError(
            "tools: found some, expected none: this model's chat template has no tools"
        )
    given = dict(variables)
    if tools:
        given["tools"] = [_tool(tool) for tool in tools]
    return tokenizer.encode_chat(_messages(instructions, messages), variables=given)


def _messages(instructions: str | None, messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    first = [] if instructions is None else [instructions]
    rest = list(messages)
    while rest and rest[0].role in ("system", "developer"):
        first.append(rest.pop(0).content or "")
    head = [{"role": "system", "content": "\n\n".join(first)}] if first else []
    return head + [_message(message) for message in rest]


def _message(message: ChatMessage) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": message.content or ""}
    if message.reasoning is not None:
        plain["reasoning_content"] = message.reasoning
    if message.calls:
        plain["tool_calls"] = [_call(call) for call in message.calls]
    if message.answered is not None:
        plain |= {"tool_call_id": message.answered.id, "name": message.answered.name}
    return plain


def _call(call: PastCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    function["parameters"] = {"type": "object"} if tool.parameters is None else tool.parameters
    return {"type": "function", "function": function}
