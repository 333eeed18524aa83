"""prepare: from a request and the turns before it to the choice that the engine is given."""

import re
from collections.abc import Sequence
from dataclasses import replace

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.choice_sink import Choice
from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.prepare import ChatAsk, content_size, prepare_chat
from gptoss_onnx.serving.prompts import ChatPrompt, render_chat
from gptoss_onnx.serving.responses.growing import Item
from gptoss_onnx.serving.responses.messages import Message, chat_messages, cut_to_fit
from gptoss_onnx.serving.responses.request import ResponseRequest
from gptoss_onnx.serving.sampling_fields import SamplingFields
from gptoss_onnx.serving.state import ServerState

TOO_LONG = "context_length_exceeded"
# Paths of fields as chat completions name them, and as this API does.
_FIELDS = (
    (re.compile(r"response_format(\.json_schema)?"), "text.format"),
    (re.compile(r"(tools\[\d+\])\.function"), r"\1"),
    (re.compile("reasoning_effort"), "reasoning.effort"),
    (re.compile(r"^messages(\[\d+\])?"), "input"),
)


async def prepare(
    state: ServerState, request: ResponseRequest, before: Sequence[Item], chosen: SamplingFields
) -> Choice:
    """Return the choice of a request that continues the items `before`.

    Raises ApiError 400 for items, tools or schemas that do not do, and for a prompt that does not
    fit. With `truncation: auto`, the oldest turns go until it fits.
    """
    try:
        messages = chat_messages([*before, *request.items])
        if not messages:
            raise InputError("input: found nothing for the model to read, expected a message")
    except InputError as error:
        raise ApiError(400, str(error), param="input") from error
    ask = ChatAsk(
        prompt=ChatPrompt(
            messages=messages,
            tools=request.tools.chat,
            tool_choice=request.tool_choice.chat,
            reasoning_effort=request.effort,
            instructions=request.instructions,
            response_format=request.text_format.chat,
        ),
        chosen=chosen,
        max_new_tokens=request.max_output_tokens,
        logprobs=request.logprobs,
        response_format=request.text_format.chat,
        parallel_tool_calls=request.parallel_tool_calls,
        collects=not request.streams,
    )
    try:
        try:
            return (await prepare_chat(state, ask))[0]
        except ApiError as error:
            if error.code != TOO_LONG or not request.truncates:
                raise
            shorter = await state.slowly(lambda: _cut(state, ask))
            if shorter is None:
                raise
        prompt = replace(ask.prompt, messages=shorter)
        return (await prepare_chat(state, replace(ask, prompt=prompt)))[0]
    except ApiError as error:
        raise _in_our_words(error) from error


def _cut(state: ServerState, ask: ChatAsk) -> list[Message] | None:
    """Return the messages of the last turns that fit, with room for an answer; None for none.

    The room is what the request allows an answer, and between a quarter and a half of the context.
    """
    capacity = state.engine.capacity
    room = min(max(ask.max_new_tokens or 0, capacity // 4), capacity // 2)

    def fits(messages: list[Message]) -> bool:
        prompt = replace(ask.prompt, messages=messages)
        if content_size(prompt) > state.longest_text:
            return False
        return len(render_chat(state.tokenizer, prompt)) <= capacity - room

    return cut_to_fit(ask.prompt.messages, fits)


def _in_our_words(error: ApiError) -> ApiError:
    """Return an error about a chat's field with this API's name for it."""
    message, param = error.message, error.param
    for theirs, ours in _FIELDS:
        message = theirs.sub(ours, message)
        param = None if param is None else theirs.sub(ours, param)
    return ApiError(error.status, message, error.kind, error.code, param, error.headers)
