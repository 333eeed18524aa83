"""A conversation in harmony, the chat format of gpt-oss, as the messages that its tokens are made
of.

What stands in which message follows OpenAI's description of the format and its renderer, which the
tests hold this to. Thoughts stay where the model goes on from them: those since its last answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gptoss_onnx.harmony_tokens import HarmonyTokens
from gptoss_onnx.serving.prompts.builtin_tools import is_builtin
from gptoss_onnx.serving.prompts.messages import ChatMessage, PastCall
from gptoss_onnx.serving.prompts.tools import ToolSpec


@dataclass(frozen=True)
class HarmonyText:
    """One message: its header and its text.

    Attributes:
        content_type: what the text is in; `is_constrained` says that it was held to it.
        is_call: it ends with `<|call|>`.
    """

    role: str
    text: str
    recipient: str | None = None
    channel: str | None = None
    content_type: str | None = None
    is_constrained: bool = False
    is_call: bool = False


class Encoder(Protocol):
    """What this needs of a tokenizer."""

    @property
    def harmony(self) -> HarmonyTokens | None:
        """The ids of harmony's control tokens."""

    def encode_plain(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens have no meaning."""


def harmony_tokens(encoder: Encoder, texts: Sequence[HarmonyText]) -> list[int]:
    """Return the ids of messages, and of the beginning of the assistant's next one.

    Whatever their texts spell, only the messages' own control tokens become such.
    """
    tokens = encoder.harmony
    assert tokens is not None
    ids: list[int] = []
    for text in texts:
        ids += _message(encoder, tokens, text)
    return [*ids, tokens.start, *encoder.encode_plain("assistant")]


def harmony_texts(
    messages: Sequence[ChatMessage], tools: Sequence[ToolSpec]
) -> Iterator[HarmonyText]:
    """Give the messages of a conversation; the system's are developers' instructions here."""
    functions = {tool.name for tool in tools}
    # Where the model has answered, what it had thought until then is over.
    answers = [place for place, message in enumerate(messages) if _is_answer(message)]
    first = answers[-1] + 1 if answers else 0
    for place, message in enumerate(messages):
        if message.role == "assistant":
            kept = message if place >= first else replace(message, reasoning=None)
            yield from _assistant(kept, functions)
        elif message.answered is not None:
            yield _result(message.content or "", message.answered, functions)
        elif message.role == "user":
            yield HarmonyText("user", message.content or "")
        else:
            yield HarmonyText("developer", f"# Instructions\n\n{message.content}")


def _is_answer(message: ChatMessage) -> bool:
    return message.role == "assistant" and not message.calls and message.content is not None


def _assistant(message: ChatMessage, functions: set[str]) -> Iterator[HarmonyText]:
    if message.reasoning is not None:
        yield HarmonyText("assistant", message.reasoning, channel="analysis")
    if message.calls and message.content:  # what the user is told before
        yield HarmonyText("assistant", message.content, channel="commentary")
    if not message.calls and message.content is not None:
        yield HarmonyText("assistant", message.content, channel="final")
    for call in message.calls:
        address, channel, content_type = _address(call, functions)
        yield HarmonyText(
            "assistant",
            call.arguments,
            address,
            channel,
            content_type,
            is_constrained=content_type == "json",
            is_call=True,
        )


def _result(text: str, call: PastCall, functions: set[str]) -> HarmonyText:
    address, channel, _ = _address(call, functions)
    return HarmonyText(address, text, "assistant", channel)


def _address(call: PastCall, functions: set[str]) -> tuple[str, str, str]:
    """Return whom a call goes to, in which channel, and what its text is in."""
    if is_builtin(call.name) and call.name not in functions:
        return call.name, "analysis", "code"
    return f"functions.{call.name}", "commentary", "json"


def _message(encoder: Encoder, tokens: HarmonyTokens, text: HarmonyText) -> list[int]:
    ids = [tokens.start, *encoder.encode_plain(text.role)]
    if text.recipient is not None:
        ids += encoder.encode_plain(f" to={text.recipient}")
    if text.channel is not None:
        ids += [tokens.channel, *encoder.encode_plain(text.channel)]
    if text.content_type is not None and text.is_constrained:
        assert tokens.constrain is not None
        ids += [*encoder.encode_plain(" "), tokens.constrain]
        ids += encoder.encode_plain(text.content_type)
    elif text.content_type is not None:
        ids += encoder.encode_plain(f" {text.content_type}")
    end = tokens.call if text.is_call else tokens.end
    assert end is not None
    return [*ids, tokens.message, *encoder.encode_plain(text.text), end]
