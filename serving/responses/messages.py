"""Items of a conversation as the chat messages that prompts are made of.

One answer of a model is one message in a chat and several items here: its thoughts, what it says
to the user, and its calls. What stands between two messages of others becomes one message again, as
chat completions would have given it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.responses.growing import Item

Message = Mapping[str, Any]


def chat_messages(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return the messages of a conversation, with `reasoning_content` and `tool_calls`.

    Thoughts that nothing follows are left out, and so are calls that the limit of tokens cut off
    and nobody answered: the next turn begins without them. Raises InputError for an output without
    its call, and for a call without its output.
    """
    answered = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    called: set[str] = set()
    messages: list[dict[str, Any]] = []
    for item in items:
        match item["type"]:
            case "function_call_output":
                if item["call_id"] not in called:
                    raise InputError(
                        "input: No tool call found for function call output with call_id "
                        f"{item['call_id']}."
                    )
                messages.append(_tool_message(item))
            case "function_call":
                if item["call_id"] in answered:
                    called.add(item["call_id"])
                    _answer(messages).setdefault("tool_calls", []).append(_call(item))
                elif item["status"] != "incomplete":
                    raise InputError(
                        f"input: No tool output found for function call {item['call_id']}."
                    )
            case "reasoning":
                _join(_answer(messages), "reasoning_content", _content(item["content"]))
            case _ if item["role"] == "assistant":
                _join(_answer(messages), "content", _content(item["content"]))
            case _:
                content = _content(item["content"])
                messages.append({"role": item["role"], "content": content})
    complete = [m for m in messages if "content" in m or "tool_calls" in m]
    return [{"content": "", **message} for message in complete]


def cut_to_fit(
    messages: Sequence[Message], fits: Callable[[list[Message]], bool]
) -> list[Message] | None:
    """Return the messages without the oldest turns, as few of them as it takes to fit.

    A turn begins with a user's message. What the system or a developer says before the first turn
    stays. Returns None where even the last turn alone does not fit. `fits` is asked about the last
    turns first, so it never sees many more of them than fit.
    """
    starts = _turns(messages)
    if not starts:
        return None
    head = [m for m in messages[: starts[0]] if m["role"] in ("system", "developer")]

    def last(turns: int) -> list[Message]:
        return [*head, *messages[starts[-turns] :]]

    few, many = 0, 1  # turns that fit, and those that might not
    while many <= len(starts) and fits(last(many)):
        few, many = many, 2 * many
    many = min(many, len(starts) + 1)
    while many - few > 1:
        middle = (few + many) // 2
        if fits(last(middle)):
            few = middle
        else:
            many = middle
    return last(few) if few else None


def _turns(messages: Sequence[Message]) -> list[int]:
    """Return where turns begin; none begins between a call and its output."""
    starts, waiting = [], set[str]()
    for index, message in enumerate(messages):
        if message["role"] == "user" and not waiting:
            starts.append(index)
        waiting |= {call["id"] for call in message.get("tool_calls", ())}
        waiting -= {message.get("tool_call_id", "")}
    return starts


def _answer(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the message of the answer that the last items belong to, a new one after others."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant"})
    return messages[-1]


def _join(message: dict[str, Any], field: str, text: str) -> None:
    """Add a text to a field of a message, on a line of its own."""
    message[field] = f"{message[field]}\n{text}" if message.get(field) else text


def _tool_message(item: Item) -> dict[str, Any]:
    output = item["output"]
    content = output if isinstance(output, str) else _content(output)
    return {"role": "tool", "tool_call_id": item["call_id"], "content": content}


def _call(item: Item) -> dict[str, Any]:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _content(parts: Sequence[dict[str, Any]]) -> str:
    """Return the text of parts, each on a line of its own, as in chat completions."""
    return "\n".join(part["text"] for part in parts)
