"""ResponseRequest: the fields of a request to make a response, read and checked."""

from dataclasses import dataclass
from typing import Any

from gptoss_onnx.serving.chat_request import EFFORTS
from gptoss_onnx.serving.errors import wrong_field
from gptoss_onnx.serving.fields import Fields, shown
from gptoss_onnx.serving.responses.growing import Item
from gptoss_onnx.serving.responses.input_items import NAME_LIMIT, read_input
from gptoss_onnx.serving.responses.tools import Told, read_format, read_tools
from gptoss_onnx.serving.sampling_fields import MOST_LOGPROBS, read_max_tokens

_LOGPROBS = "message.output_text.logprobs"
# Accepted, as at OpenAI, also where no such item can come. The thoughts of this server are never
# locked: they are in `content`, and can be sent back as they are.
_INCLUDABLE = (
    _LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
_REFUSED = {
    "background": "false: this server answers while the client waits",
    "conversation": "none: previous_response_id continues a conversation",
    "prompt": "none: this server keeps no templates of prompts",
    "context_management": "none: this server makes no summaries of conversations",
}


@dataclass(frozen=True)
class ResponseRequest:
    """What a client asks for, but for how tokens are chosen, which all APIs read alike.

    Attributes:
        items: what it gives, without the earlier turns.
        logprobs: how many of the most probable tokens to tell beside each token of the text; None
            for no log probabilities.
        truncates: the oldest turns may be left out of a prompt that is too long.
        echo: the fields that the response repeats.
    """

    items: list[Item]
    instructions: str | None
    tools: Told
    tool_choice: Told
    parallel_tool_calls: bool
    text_format: Told
    effort: str | None
    max_output_tokens: int | None
    logprobs: int | None
    truncates: bool
    previous: str | None
    stores: bool
    streams: bool
    echo: dict[str, Any]


def read_request(fields: Fields) -> ResponseRequest:
    """Return a request's fields; raises ApiError for one that is wrong, or has no meaning here."""
    for name, expected in _REFUSED.items():
        if fields.value.get(name) not in (None, False, []):
            raise fields.wrong(name, expected)
    tools, tool_choice = read_tools(fields)
    text_format = read_format(fields)
    items = read_input(fields)
    previous = _name(fields, "previous_response_id")
    if not items and previous is None:
        raise fields.wrong("input", "a text or a list of items")
    instructions = fields.text("instructions") if fields.has("instructions") else None
    effort = _read_effort(fields)
    parallel = fields.boolean("parallel_tool_calls", True)
    limit = read_max_tokens(fields, "max_output_tokens")
    top_logprobs = fields.integer("top_logprobs", 0, MOST_LOGPROBS, 0)
    truncation = fields.one_of("truncation", ("auto", "disabled"), "disabled")
    return ResponseRequest(
        items=items,
        instructions=instructions,
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=parallel,
        text_format=text_format,
        effort=effort,
        max_output_tokens=limit,
        logprobs=top_logprobs if _LOGPROBS in _read_include(fields) or top_logprobs else None,
        truncates=truncation == "auto",
        previous=previous,
        stores=fields.boolean("store", True),
        streams=fields.boolean("stream", False),
        echo={
            "instructions": instructions,
            "max_output_tokens": limit,
            "metadata": _read_metadata(fields),
            "parallel_tool_calls": parallel,
            "previous_response_id": previous,
            "prompt_cache_key": _name(fields, "prompt_cache_key"),
            "reasoning": {"effort": effort, "summary": None},  # none is made
            "safety_identifier": _name(fields, "safety_identifier"),
            "temperature": fields.number("temperature", 0, 2, 1.0),
            "text": {"format": text_format.echo},
            "tool_choice": tool_choice.echo,
            "tools": tools.echo,
            "top_logprobs": top_logprobs,
            "top_p": fields.number("top_p", 0, 1, 1.0),
            "truncation": truncation,
            "user": _name(fields, "user"),
        },
    )


def begun(request: ResponseRequest, name: str, model: str, now: int) -> dict[str, Any]:
    """Return the response as it begins; `now` is in seconds since 1970."""
    return {
        "id": name,
        "object": "response",
        "created_at": now,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
        **request.echo,
    }


def _read_effort(fields: Fields) -> str | None:
    """Return how much the model shall think; None leaves it to the model's own default."""
    reasoning = fields.object("reasoning")
    if reasoning is None:
        return None
    for name in ("summary", "generate_summary"):
        reasoning.one_of(name, ("auto", "concise", "detailed"), "auto")
    return reasoning.one_of("effort", EFFORTS) if reasoning.has("effort") else None


def _read_include(fields: Fields) -> list[str]:
    for place, name in enumerate(entries := fields.items("include", len(_INCLUDABLE))):
        if name not in _INCLUDABLE:
            raise wrong_field(f"include[{place}]", shown(name), f"one of {', '.join(_INCLUDABLE)}")
    return entries


def _read_metadata(fields: Fields) -> dict[str, str]:
    metadata = fields.object("metadata")
    if metadata is None:
        return {}
    if len(metadata.value) > 16:
        raise fields.wrong("metadata", "at most 16 entries")
    for key in metadata.value:
        if len(key) > 64:
            raise wrong_field("metadata", shown(key), "keys of at most 64 characters")
        metadata.text(key, longest=512)
    return dict(metadata.value)


def _name(fields: Fields, field: str) -> str | None:
    return fields.text(field, longest=NAME_LIMIT) if fields.has(field) else None
