"""Read how tokens are to be chosen: the fields that chat completions, completions and responses
share.
"""

from dataclasses import dataclass
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.sampling import Sampling
from gptoss_onnx.runtime.stops import split_stops
from gptoss_onnx.serving.errors import ApiError, wrong_field
from gptoss_onnx.serving.fields import Fields, shown
from gptoss_onnx.serving.state import ServerState

MOST_LOGPROBS = 20
_MOST_TOKENS = 1 << 31
_MOST_STOPS, _LONGEST_STOP = 16, 1_000  # texts, and characters of one
_MOST_BIASED = 1_024  # tokens
_LARGEST_BIAS = 100.0
_SEEDS = 1 << 63  # OpenAI's seeds are 64-bit integers with a sign; ours have none
_LEAST_TOP_P = 1e-9  # stands for 0, which takes the most probable token alone


@dataclass(frozen=True)
class SamplingFields:
    """How tokens are chosen, and the stop texts, which the reader of the answer looks for."""

    sampling: Sampling
    stop: tuple[str, ...]


def read_sampling(fields: Fields, state: ServerState, ends: tuple[int, ...]) -> SamplingFields:
    """Read temperature, top_p, penalties, logit_bias, seed and stop, and what vLLM's clients add.

    `ends` are the ids that end the answer in any case. Raises ApiError.
    """
    stop_ids, stop_texts = _read_stop(fields, state)
    try:
        sampling = Sampling(
            temperature=fields.number("temperature", 0, 2, 1.0),
            top_k=_top_k(fields),
            top_p=max(fields.number("top_p", 0, 1, 1.0), _LEAST_TOP_P),
            min_p=fields.number("min_p", 0, 1, 0.0),
            repetition_penalty=fields.number("repetition_penalty", 0.01, 10, 1.0),
            frequency_penalty=fields.number("frequency_penalty", -2, 2, 0.0),
            presence_penalty=fields.number("presence_penalty", -2, 2, 0.0),
            logit_bias=_read_bias(fields, state.vocab),
            seed=_read_seed(fields),
            stop_tokens=tuple(dict.fromkeys((*ends, *stop_ids))),
        )
    except InputError as error:
        raise ApiError(400, str(error)) from error
    return SamplingFields(sampling, stop_texts)


def read_max_tokens(fields: Fields, *names: str, least: int = 1) -> int | None:
    """Read the limit on new tokens under the first of its names that the request uses."""
    for name in names:
        if fields.has(name):
            return fields.integer(name, least, _MOST_TOKENS, least)
    return None


def read_choice_count(fields: Fields, state: ServerState, prompts: int = 1) -> int:
    """Read `n`, the answers to each of so many prompts."""
    return fields.integer("n", 1, max(1, state.settings.max_choices // prompts), 1)


def _top_k(fields: Fields) -> int:
    """Read `top_k`; −1 means all tokens, as vLLM's clients say it, and so does 0."""
    return max(0, fields.integer("top_k", -1, _MOST_TOKENS, 0))


def _read_seed(fields: Fields) -> int | None:
    if not fields.has("seed"):
        return None
    return fields.integer("seed", -_SEEDS, _SEEDS - 1, 0) % _SEEDS


def _read_stop(fields: Fields, state: ServerState) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the ids of stops that spell a special token, and the other texts."""
    if isinstance(fields.value.get("stop"), str):
        texts = [fields.value["stop"]]
    else:
        texts = fields.items("stop", _MOST_STOPS)
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_STOP:
            expected = f"a text of 1 to {_LONGEST_STOP} characters"
            raise wrong_field(f"{fields.path('stop')}[{place}]", shown(text), expected)
    try:
        return split_stops(texts, state.tokenizer.special_tokens)
    except InputError as error:
        raise ApiError(400, str(error), param="stop") from error


def _read_bias(fields: Fields, vocab: int) -> dict[int, float]:
    given = fields.object("logit_bias")
    if given is None:
        return {}
    if len(given.value) > _MOST_BIASED:
        raise fields.wrong("logit_bias", f"at most {_MOST_BIASED} tokens")
    return {_token(given, name, vocab): _bias(given, name) for name in given.value}


def _bias(given: Fields, name: str) -> float:
    return given.number(name, -_LARGEST_BIAS, _LARGEST_BIAS, 0.0)


def _token(given: Fields, name: Any, vocab: int) -> int:
    is_number = name.isascii() and name.isdecimal() and len(name) < 12
    if not is_number or int(name) >= vocab:
        expected = f"the id of a token, 0 to {vocab - 1}"
        raise wrong_field(given.where, shown(name), expected)
    return int(name)
