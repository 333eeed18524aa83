"""Score a sequence: its logits at many positions, in a cache of its own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.arguments import integer_array
from gptoss_onnx.runtime.kv_cache import PREFILL_CHUNK

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session


def score(
    session: "Session",
    token_ids: Sequence[int] | NDArray[Any],
    chunk: int | None,
    positions: ArrayLike | None,
) -> NDArray[np.float32]:
    """Return logits, float32 (kept, V); see `Session.score`."""
    tokens = integer_array("token_ids", token_ids)
    if tokens.ndim != 1:
        raise InputError(f"token_ids: found shape {tokens.shape}, expected one sequence (T,)")
    if tokens.size == 0:
        return np.zeros((0, session.vocab), np.float32)
    columns = PREFILL_CHUNK if chunk is None else chunk
    wanted = np.arange(tokens.size) if positions is None else np.asarray(positions)
    with session.new_cache(1, tokens.size, chunk=columns) as cache:
        logits = session.forward(tokens[None], cache, logit_positions=wanted[None])
    return logits.reshape(-1, session.vocab)  # (1, kept, V)
