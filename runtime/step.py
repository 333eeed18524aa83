"""One call of the graph on a cache: what it leaves in the cache when it goes well, and when it does not."""

import math

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.runtime.binding import Binding
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.request import Step


def run_step(binding: Binding, cache: KVCache, step: Step) -> NDArray[np.float32]:
    """Run `step` after what `cache` holds, advance it, and return fresh logits (B, kept, V).

    Raises:
        RuntimeUnavailable: ONNX Runtime failed.
        PackageError: the cache is float16 and holds numbers that are not finite, which is why the graph
            failed or its logits are not finite either.
    """
    cache.mark_writing(step.input_ids.shape[1])
    try:
        logits = binding.run(step.input_ids, cache.lengths, step.new_lengths, step.logit_positions)
    except BaseException as error:  # an interrupt cuts a call off as well
        cache.mark_failed()
        if isinstance(error, RuntimeUnavailable):
            _check_overflow(cache, error)
        raise
    if not math.isfinite(float(logits.max())):
        _check_overflow(cache, None)
    cache.advance(step.new_lengths, step.input_ids)
    return logits


def _check_overflow(cache: KVCache, cause: Exception | None) -> None:
    """Name the float16 cache where it has overflowed: the graph only notices later, in another op."""
    if cache.dtype != "float16":
        return
    where = cache.overflow()
    if where is None:
        return
    cache.mark_overflow(where)
    raise PackageError(
        f"cache: float16 overflowed: {where}, expected numbers below 65520; "
        "export again with --kv-dtype float32 or --kv-dtype bfloat16"
    ) from cause
