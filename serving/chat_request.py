"""read_chat: the body of `/v1/chat/completions`, checked field by field."""

from dataclasses import dataclass
from typing import Any

from gptoss_onnx.serving.errors import ApiError, wrong_field
from gptoss_onnx.serving.fields import Fields, shown
from gptoss_onnx.serving.models import read_model
from gptoss_onnx.serving.prepare import ChatAsk
from gptoss_onnx.serving.prompts import ChatPrompt
from gptoss_onnx.serving.sampling_fields import (
    MOST_LOGPROBS,
    read_choice_count,
    read_max_tokens,
    read_sampling,
)
from gptoss_onnx.serving.state import ServerState

# Of OpenAI's models; gpt-oss takes three of them, as rendering tells who asks for another.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
MOST_MESSAGES, MOST_TOOLS = 4_096, 128
_REPLACED = {"functions": "tools", "function_call": "tool_choice"}


@dataclass(frozen=True)
class ChatRequest:
    """What a chat's request asks, and how it wants the answer.

    Attributes:
        ask: what is asked of the model.
        stream: the answer comes in chunks.
        include_usage: the last chunk counts the tokens.
    """

    ask: ChatAsk
    stream: bool
    include_usage: bool


def read_chat(fields: Fields, state: ServerState) -> ChatRequest:
    """Return what a request asks; unknown fields are ignored.

    Raises ApiError for the first field that does not do, with its name, what was found and what was
    expected.
    """
    read_model(state, fields)
    for old, new in _REPLACED.items():
        if fields.has(old):
            raise ApiError(400, f"{old}: found a field of the old form, expected {new}", param=old)
    _refuse_sounds(fields)
    stream = fields.boolean("stream", False)
    return ChatRequest(
        ask=ChatAsk(
            prompt=read_prompt(fields),
            chosen=read_sampling(fields, state, state.chat_ends),
            count=read_choice_count(fields, state),
            max_new_tokens=read_max_tokens(fields, "max_completion_tokens", "max_tokens"),
            logprobs=_read_logprobs(fields),
            response_format=_value(fields.object("response_format")),
            parallel_tool_calls=fields.boolean("parallel_tool_calls", True),
            collects=not stream,
        ),
        stream=stream,
        include_usage=read_include_usage(fields, stream),
    )


def read_prompt(fields: Fields) -> ChatPrompt:
    """Read what the model is shown; what messages and tools hold is checked where they are used."""
    return ChatPrompt(
        messages=fields.items("messages", MOST_MESSAGES, 1),
        tools=fields.items("tools", MOST_TOOLS),
        tool_choice=fields.value.get("tool_choice"),
        reasoning_effort=(
            fields.one_of("reasoning_effort", EFFORTS) if fields.has("reasoning_effort") else None
        ),
    )


def read_include_usage(fields: Fields, stream: bool) -> bool:
    """Read `stream_options.include_usage`, which only a stream has."""
    options = fields.object("stream_options")
    if options is None:
        return False
    if not stream:
        raise fields.wrong("stream_options", 'nothing, where "stream" is not true')
    return options.boolean("include_usage", False)


def _read_logprobs(fields: Fields) -> int | None:
    top = fields.integer("top_logprobs", 0, MOST_LOGPROBS, 0)
    if fields.boolean("logprobs", False):
        return top
    if top:
        raise fields.wrong("top_logprobs", 'nothing, where "logprobs" is not true')
    return None


def _refuse_sounds(fields: Fields) -> None:
    for place, kind in enumerate(fields.items("modalities", 10)):
        if kind != "text":
            raise wrong_field(f"modalities[{place}]", shown(kind), '"text"')
    if fields.has("audio"):
        raise fields.wrong("audio", "nothing: this model makes no sounds")


def _value(fields: Fields | None) -> dict[str, Any] | None:
    return None if fields is None else fields.value
