"""prepare_chat: from what an API was asked for to the choices that the engine is given.

Rendering, tokenizing and compiling schemas take long for long prompts, so this runs beside the
event loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.answers import answer_reader
from gptoss_onnx.serving.choice_sink import Choice, logprob_bytes
from gptoss_onnx.serving.errors import ApiError, refused
from gptoss_onnx.serving.prompts import ChatPrompt, read_tools, render_chat
from gptoss_onnx.serving.sampling_fields import SamplingFields
from gptoss_onnx.serving.state import ServerState, in_thread

LONG = 100_000  # characters: more take more than a tenth of a second to become tokens


@dataclass(frozen=True)
class ChatAsk:
    """What is asked of the model, whichever API asks.

    Attributes:
        prompt: what the model reads, tools included; `response_format` is taken from below.
        chosen: how tokens are chosen, and stop texts.
        count: answers.
        max_new_tokens: of each answer; None: as many as there is room for.
        logprobs: see `Choice`.
        response_format: what the answer has to be, as chat completions say it; None for any text.
        parallel_tool_calls: an answer may hold several calls.
        collects: the answers are sent as a whole.
    """

    prompt: ChatPrompt
    chosen: SamplingFields
    count: int = 1
    max_new_tokens: int | None = None
    logprobs: int | None = None
    response_format: Mapping[str, Any] | None = None
    parallel_tool_calls: bool = True
    collects: bool = False


async def prepare_chat(state: ServerState, ask: ChatAsk) -> list[Choice]:
    """Return the choices of a chat; raises ApiError 400 for messages, tools or schemas that do not
    do, and for a prompt that does not fit.
    """
    prompt = ask.prompt
    size = text_size([prompt.messages, prompt.tools, prompt.instructions])
    if ask.response_format is not None or prompt.tools or size > LONG:
        return await state.slowly(lambda: _prepare(state, ask))
    return await in_thread(lambda: _prepare(state, ask))


def room_for(state: ServerState, prompt: Sequence[int], wanted: int | None) -> int:
    """Return how many tokens may follow a prompt: as many as are wanted, if they fit.

    Raises ApiError for a prompt that leaves no room for one.
    """
    capacity = state.engine.capacity
    room = capacity - len(prompt)
    if room < 1:
        raise ApiError(
            400,
            f"prompt: found {len(prompt)} tokens, expected at most {capacity - 1}: the context "
            f"length of this server is {capacity} tokens, the answer included",
            code="context_length_exceeded",
            param="messages",
        )
    return room if wanted is None else min(wanted, room)


def collected_room(
    state: ServerState, room: int, count: int, logprobs: int | None, collects: bool
) -> int:
    """Return how many of `room` tokens each of `count` answers may have: where they are collected
    to be sent as a whole, as many as there is memory for with their log-probabilities.

    So no answer is generated to be refused. Raises ApiError where not one token fits.
    """
    if logprobs is None or not collects:
        return room
    most = state.settings.max_answer_bytes // (count * logprob_bytes(logprobs))
    if most < 1:
        raise ApiError(
            400,
            f"n: found {count} answers with {logprobs} top_logprobs, more than "
            f"{state.settings.max_answer_bytes} bytes; expected fewer, or a stream",
            code="answer_too_large",
            param="n",
        )
    return min(room, most)


def check_text(state: ServerState, size: int, param: str = "messages") -> None:
    """Refuse texts of so many characters that cannot fit, before they are made tokens: that takes
    140 times their memory. Raises ApiError as `room_for` does.
    """
    if size > state.longest_text:
        capacity = state.engine.capacity
        raise ApiError(
            400,
            f"prompt: found {size} characters, expected at most {state.longest_text}: the context "
            f"length of this server is {capacity} tokens, the answer included",
            code="context_length_exceeded",
            param=param,
        )


def text_size(value: Any) -> int:
    """Return the characters of all texts in a value of a request, names of fields aside."""
    size, left = 0, [value]
    while left:
        entry = left.pop()
        if isinstance(entry, str):
            size += len(entry)
        elif isinstance(entry, (list, tuple)):
            left += entry
        elif isinstance(entry, dict):
            left += entry.values()
    return size


def content_size(prompt: ChatPrompt) -> int:
    """Return the characters that a prompt shows a model in any case: old thoughts may be left
    out, and fields that nobody reads are.
    """
    contents = [message.get("content") for message in prompt.messages if type(message) is dict]
    return text_size([contents, prompt.instructions])


def _prepare(state: ServerState, ask: ChatAsk) -> list[Choice]:
    try:
        # gpt-oss is shown the schema, too; constraints alone would leave it guessing
        prompt = replace(ask.prompt, response_format=ask.response_format)
        check_text(state, content_size(prompt))
        tokens = tuple(render_chat(state.tokenizer, prompt))
        room = room_for(state, tokens, ask.max_new_tokens)
        room = collected_room(state, room, ask.count, ask.logprobs, ask.collects)
        shared = np.array(tokens, np.int64)
        return [_choice(state, ask, tokens, shared, room, index) for index in range(ask.count)]
    except InputError as error:
        raise refused(error) from error


def _choice(
    state: ServerState,
    ask: ChatAsk,
    tokens: tuple[int, ...],
    shared: NDArray[np.int64],
    room: int,
    index: int,
) -> Choice:
    names = [tool.name for tool in read_tools(ask.prompt.tools)]
    return Choice(
        tokens=shared,
        sampling=ask.chosen.sampling,
        max_new_tokens=room,
        index=index,
        reader=answer_reader(state.tokenizer, tokens, ask.chosen.stop, names),
        control=state.control,
        logprobs=ask.logprobs,
        constraint=state.constraints.make(
            ask.response_format,
            ask.prompt.tools,
            ask.prompt.tool_choice,
            ask.parallel_tool_calls,
            tokens,
            ask.prompt.builtin_tools,
        ),
    )
