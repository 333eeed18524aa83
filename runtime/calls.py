"""Run a request on the first rows of a cache, one call of the graph after the other, and keep the
cache true to what has run.

B rows, V vocabulary.
"""

import math

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.runtime.binding import empty_logits
from gptoss_onnx.runtime.cache_part import CachePart
from gptoss_onnx.runtime.request import GraphCall, Request
from gptoss_onnx.runtime.runnable import RunnableCall
from gptoss_onnx.runtime.target import CallInputs


def run_request(
    binding: RunnableCall, part: CachePart, request: Request, vocab: int
) -> NDArray[np.float32]:
    """Run a request in as many calls as the cache needs, and return its logits (B, kept, V).

    Zeros where a position lies in a row's padding. Raises what `run_call` raises; the calls before
    stay in the cache then.
    """
    shape = (*request.wanted.shape, vocab)
    begin, longest = 0, request.longest
    answer = None
    while begin < longest:
        end = begin + part.columns(longest - begin)
        call = request.call(begin, end)
        logits = run_call(binding, part, call)
        if end - begin == longest and request.wanted.all() and logits.shape == shape:
            return logits  # the whole answer in one call
        if answer is None:
            answer = empty_logits(shape)
        answer[call.rows, call.places] = logits[call.rows, call.taken]
        begin = end
    return empty_logits(shape) if answer is None else answer


def run_call(binding: RunnableCall, part: CachePart, call: GraphCall) -> NDArray[np.float32]:
    """Run `call` after what `part` holds, advance it, and return fresh logits (B, kept, V).

    Raises:
        RuntimeUnavailable: ONNX Runtime failed.
        PackageError: the cache is float16 and holds numbers that are not finite, which is why the
            graph failed or its logits are not finite either.
    """
    part.mark_writing(call.input_ids.shape[1])
    inputs = CallInputs(
        call.input_ids, part.lengths, call.new_lengths, call.logit_positions, part.window_starts
    )
    try:
        logits = binding.run(inputs)
    except BaseException as error:  # an interrupt cuts a call off as well
        part.mark_failed()
        if isinstance(error, RuntimeUnavailable):
            _check_overflow(part, error)
        raise
    if part.cache.dtype == "float16" and not math.isfinite(float(logits.max())):
        _check_overflow(part, None)
    part.advance(call.new_lengths, call.input_ids)
    return logits


def _check_overflow(part: CachePart, cause: Exception | None) -> None:
    """Name the float16 cache where it has overflowed: the graph only notices later, in another
    op.
    """
    if part.cache.dtype != "float16":
        return
    where = part.find_overflow()
    if where is None:
        return
    raise PackageError(
        f"cache: float16 overflowed: {where}, expected numbers below 65520; "
        "export again with --kv-dtype float32 or --kv-dtype bfloat16"
    ) from cause
