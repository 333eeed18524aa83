"""The prompts of `Session.generate`: one sequence of token ids, or a list of several."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import integer_array, shown


def prompt_rows(token_ids: Any, vocab: int, longest: int) -> tuple[list[NDArray[np.int64]], bool]:
    """Return the prompts, and whether they came as a list of several.

    Raises InputError for one that is empty, longer than `longest`, or has ids that no token of the
    vocabulary has.
    """
    prompts, several = _arrays(token_ids)
    for index, prompt in enumerate(prompts):
        if prompt.size == 0:
            raise InputError(f"row {index}: found an empty prompt, expected at least one token")
        if prompt.min() < 0 or prompt.max() >= vocab:
            raise InputError(
                f"row {index}: found token ids {prompt.min()} to {prompt.max()}, expected 0 to "
                f"{vocab - 1}"
            )
        if prompt.size > longest:
            raise InputError(
                f"row {index}: found {prompt.size} tokens, expected at most {longest}, the longest "
                "this model takes"
            )
    return [prompt.astype(np.int64) for prompt in prompts], several


def _arrays(token_ids: Any) -> tuple[list[NDArray[Any]], bool]:
    """Return arrays of integers of any type."""
    try:
        several = len(token_ids) > 0 and np.ndim(token_ids[0]) > 0
        rows = list(token_ids) if several else [token_ids]
    except (TypeError, ValueError, KeyError, IndexError):
        raise InputError(
            f"token_ids: found {shown(token_ids)}, expected a sequence of token ids, or a list of "
            "such sequences"
        ) from None
    return [_array(row, index) for index, row in enumerate(rows)], several


def _array(tokens: Any, index: int) -> NDArray[Any]:
    array = integer_array(f"row {index}", tokens)
    if array.ndim != 1:
        raise InputError(
            f"row {index}: found {array.dtype} of shape {array.shape}, expected a sequence of "
            "token ids"
        )
    return array
