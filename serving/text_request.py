"""read_text: the body of `/v1/completions`, checked field by field."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.chat_request import read_include_usage
from gptoss_onnx.serving.choice_sink import Choice
from gptoss_onnx.serving.errors import ApiError, refused, wrong_field
from gptoss_onnx.serving.fields import Fields, shown
from gptoss_onnx.serving.models import read_model
from gptoss_onnx.serving.plain_reader import PlainReader
from gptoss_onnx.serving.prepare import check_text, collected_room, room_for
from gptoss_onnx.serving.sampling_fields import (
    MOST_LOGPROBS,
    SamplingFields,
    read_choice_count,
    read_max_tokens,
    read_sampling,
)
from gptoss_onnx.serving.state import ServerState

DEFAULT_TOKENS = 16  # OpenAI's, for a request that names no limit


@dataclass(frozen=True)
class TextRequest:
    """What a completion's request asks, and how it wants the answer.

    Attributes:
        choices: the answers to be generated: those to the first prompt first.
        echoed: for each choice, the text that comes before its answer.
        has_logprobs: log-probabilities are told.
        stream: the answer comes in chunks.
        include_usage: the last chunk counts the tokens.
    """

    choices: list[Choice]
    echoed: list[str]
    has_logprobs: bool
    stream: bool
    include_usage: bool


def read_text(fields: Fields, state: ServerState) -> TextRequest:
    """Return what a request asks, its prompts as tokens; unknown fields are ignored.

    A list of texts, or of lists of token ids, is a prompt each. Raises ApiError for the first field
    that does not do, with its name, what was found and what was expected.
    """
    read_model(state, fields)
    if fields.value.get("suffix"):
        raise fields.wrong("suffix", "nothing: this server continues texts and fills no gaps")
    stream, echo = fields.boolean("stream", False), fields.boolean("echo", False)
    logprobs = fields.integer("logprobs", 0, MOST_LOGPROBS, 0) if fields.has("logprobs") else None
    if echo and logprobs is not None:
        raise fields.wrong("logprobs", "nothing beside echo: those of prompts are not computed")
    include_usage = read_include_usage(fields, stream)
    chosen = read_sampling(fields, state, state.text_ends)
    limit = read_max_tokens(fields, "max_tokens", "max_completion_tokens") or DEFAULT_TOKENS
    prompts = read_prompts(fields, state)
    count = read_choice_count(fields, state, len(prompts))
    if fields.integer("best_of", 1, state.settings.max_choices, count) != count:
        raise fields.wrong("best_of", f"the same as n, {count}: all answers are returned")
    choices, echoed = [], []
    for prompt in prompts:
        room = _room(state, prompt, limit)
        room = collected_room(state, room, count * len(prompts), logprobs, not stream)
        shared = np.array(prompt, np.int64)
        choices += [_choice(state, shared, chosen, room, index, logprobs) for index in range(count)]
        echoed += count * [state.tokenizer.decode(prompt) if echo else ""]
    return TextRequest(choices, echoed, logprobs is not None, stream, include_usage)


def read_prompts(fields: Fields, state: ServerState) -> list[tuple[int, ...]]:
    """Read `prompt`, a text, token ids, or a list of the one or the other, as tokens."""
    prompt = fields.value.get("prompt")
    if isinstance(prompt, list) and prompt and not all(type(entry) is int for entry in prompt):
        if len(prompt) > state.settings.max_choices:
            raise fields.wrong("prompt", f"at most {state.settings.max_choices} prompts")
        return [_tokens(entry, f"prompt[{place}]", state) for place, entry in enumerate(prompt)]
    return [_tokens(prompt, "prompt", state)]


def _tokens(prompt: Any, where: str, state: ServerState) -> tuple[int, ...]:
    if isinstance(prompt, str):
        check_text(state, len(prompt), "prompt")
        try:
            tokens = tuple(state.tokenizer.encode(prompt))
        except InputError as error:
            raise refused(error) from error
        if not tokens:
            raise wrong_field(where, "no token", "a text of at least one")
        return tokens
    if not isinstance(prompt, list) or not prompt:
        raise wrong_field(where, shown(prompt), "a text or a list of token ids, not empty")
    for place, token in enumerate(prompt):
        if type(token) is not int or not 0 <= token < state.vocab:
            expected = f"the id of a token, 0 to {state.vocab - 1}"
            raise wrong_field(f"{where}[{place}]", shown(token), expected)
    return tuple(prompt)


def _room(state: ServerState, prompt: tuple[int, ...], limit: int) -> int:
    try:
        return room_for(state, prompt, limit)
    except ApiError as error:
        error.param = "prompt"
        raise


def _choice(
    state: ServerState,
    prompt: NDArray[np.int64],
    chosen: SamplingFields,
    room: int,
    index: int,
    logprobs: int | None,
) -> Choice:
    return Choice(
        tokens=prompt,
        sampling=chosen.sampling,
        max_new_tokens=room,
        index=index,
        reader=PlainReader(state.tokenizer, chosen.stop),
        control=state.control,
        logprobs=logprobs,
    )
