"""Chat messages as the OpenAI API has them, checked and read: each error names the field."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import printable
from gptoss_onnx.runtime.messages import plain_data

Role = Literal["system", "developer", "user", "assistant", "tool"]
MESSAGES_LIMIT = 4096
CALLS_LIMIT = 128  # of one message
ID_LIMIT = 256  # characters of a call's id
# A name that a model called: with a dot for builtin tools, such as browser.search.
CALLED_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ROLES = get_args(Role)
_TEXT_PARTS = ("text", "input_text", "output_text")
_REASONING = ("reasoning_content", "reasoning", "thinking")  # the first that has a value counts


@dataclass(frozen=True)
class PastCall:
    """A call that the model made: what it gave as arguments is a text, mostly of a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ChatMessage:
    """One message.

    Attributes:
        content: None where an assistant's message has none.
        reasoning: the assistant's thoughts.
        calls: what the assistant called.
        answered: the call whose result a tool's message is; None for other roles.
    """

    role: Role
    content: str | None = None
    reasoning: str | None = None
    calls: tuple[PastCall, ...] = ()
    answered: PastCall | None = None


def read_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """Return the messages of a conversation.

    Fields that are not known are not looked at. Raises InputError, which names the field, such as
    `messages[3].content[0].type`: for another role, content that is no text, a tool's message that
    answers no earlier call, more than 4096 messages, and what is beyond the limits of `plain_data`.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InputError(f"messages: found {type(messages).__name__}, expected a list of messages")
    if not 0 < len(messages) <= MESSAGES_LIMIT:
        raise InputError(f"messages: found {len(messages)}, expected 1 to {MESSAGES_LIMIT}")
    plain = plain_data(list(messages), "messages")
    assert isinstance(plain, list)
    made: dict[str, PastCall] = {}
    read = []
    for place, message in enumerate(plain):
        read.append(_message(message, f"messages[{place}]", made))
        made.update((call.id, call) for call in read[-1].calls)
    return tuple(read)


def _message(message: Any, where: str, made: Mapping[str, PastCall]) -> ChatMessage:
    if not isinstance(message, dict):
        raise InputError(f"{where}: found {_kind(message)}, expected an object")
    role = _role(message.get("role"), f"{where}.role")
    content = message.get("content")
    text = None if content is None else _text(content, f"{where}.content")
    if role == "assistant":
        reasoning = _reasoning(message, where)
        calls = _calls(message.get("tool_calls"), f"{where}.tool_calls")
        if text is None and not calls and reasoning is None:
            raise InputError(f"{where}: found no content and no tool_calls, expected one of them")
        return ChatMessage(role, text, reasoning, calls)
    if text is None:
        raise InputError(f"{where}.content: found none, expected a text or a list of text parts")
    if role == "tool":
        return ChatMessage(role, text, answered=_answered(message, where, made))
    return ChatMessage(role, text)


def _role(role: Any, where: str) -> Role:
    for known in _ROLES:
        if role == known:
            return known  # type: ignore[no-any-return]  # get_args gives what Role lists
    raise InputError(f"{where}: found {_shown(role)}, expected one of {', '.join(_ROLES)}")


def _text(content: Any, where: str) -> str:
    """Return the text of content, whose parts are a line each."""
    if isinstance(content, str):
        return unicode_text(content, where)
    if not isinstance(content, list):
        raise InputError(f"{where}: found {_kind(content)}, expected a text or a list of parts")
    texts = []
    for place, part in enumerate(content):
        here = f"{where}[{place}]"
        if not isinstance(part, dict):
            raise InputError(f"{here}: found {_kind(part)}, expected an object")
        kind = part.get("type")
        if kind not in _TEXT_PARTS:
            raise InputError(
                f"{here}.type: found {_shown(kind)}, expected 'text': this model reads nothing else"
            )
        if not isinstance(part.get("text"), str):
            raise InputError(f"{here}.text: found {_kind(part.get('text'))}, expected a text")
        texts.append(unicode_text(part["text"], f"{here}.text"))
    return "\n".join(texts)


def _reasoning(message: Mapping[str, Any], where: str) -> str | None:
    for name in _REASONING:
        if message.get(name) is not None:
            if not isinstance(message[name], str):
                raise InputError(f"{where}.{name}: found {_kind(message[name])}, expected a text")
            return unicode_text(message[name], f"{where}.{name}") or None
    return None


def _calls(calls: Any, where: str) -> tuple[PastCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise InputError(f"{where}: found {_kind(calls)}, expected a list")
    if len(calls) > CALLS_LIMIT:
        raise InputError(f"{where}: found {len(calls)}, expected at most {CALLS_LIMIT}")
    read: dict[str, PastCall] = {}
    for place, call in enumerate(calls):
        made = _call(call, f"{where}[{place}]")
        if made.id in read:
            raise InputError(f"{where}[{place}].id: found {made.id!r:.80} twice, expected it once")
        read[made.id] = made
    return tuple(read.values())


def _call(call: Any, where: str) -> PastCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        found = _kind(call if not isinstance(call, dict) else function)
        raise InputError(f"{where}.function: found {found}, expected an object")
    if call.get("type", "function") != "function":
        raise InputError(f"{where}.type: found {_shown(call['type'])}, expected 'function'")
    name = function.get("name")
    if not isinstance(name, str) or not CALLED_NAME.fullmatch(name):
        raise InputError(
            f"{where}.function.name: found {_shown(name)}, expected 1 to 64 letters, digits, "
            "'_', '-' or '.'"
        )
    arguments = function.get("arguments", "")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        raise InputError(f"{where}.function.arguments: found {_kind(arguments)}, expected a text")
    unicode_text(arguments, f"{where}.function.arguments")
    return PastCall(_id(call.get("id"), f"{where}.id"), name, arguments)


def _answered(message: Mapping[str, Any], where: str, made: Mapping[str, PastCall]) -> PastCall:
    id_ = _id(message.get("tool_call_id"), f"{where}.tool_call_id")
    if id_ not in made:
        raise InputError(
            f"{where}.tool_call_id: found {_shown(id_)}, expected the id of a call in an earlier "
            "message of the assistant"
        )
    return made[id_]


def _id(id_: Any, where: str) -> str:
    if not isinstance(id_, str) or not 0 < len(id_) <= ID_LIMIT:
        raise InputError(
            f"{where}: found {_shown(id_)}, expected a text of 1 to {ID_LIMIT} letters"
        )
    return unicode_text(id_, where)


def unicode_text(text: str, where: str) -> str:
    """Return a text; raises InputError where JSON's escapes made no Unicode of it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: found a lone surrogate at character {error.start}, expected Unicode"
        ) from error
    return text


def _kind(value: Any) -> str:
    return "none" if value is None else type(value).__name__


def _shown(value: Any) -> str:
    return "none" if value is None else printable(f"{value!r:.80}")
