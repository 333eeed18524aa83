"""What the tests of the native SinkAttention share: layers, models without a body, comparison."""

from functools import cache

import torch

from support.attention_cases import Case, Inputs, Options, cached_call, real_tokens
from support.op_models import op_model

GPT_OSS = Options()


def layer(
    kv_heads: int,
    group: int,
    head_dim: int,
    window: int,
    new: tuple[int, ...],
    columns: int,
    options: Options = GPT_OSS,
) -> Case:
    """Return a layer and its first call."""
    calls, rewinds = ((new, columns),), ((0,) * len(new),)
    return Case(kv_heads, group, head_dim // 2, window, 0, calls, rewinds, 3, options)


def model_of(case: Case, inputs: Inputs) -> bytes:
    """Return the op without its portable body, which would run in silence where the kernel is
    missing.
    """
    return op_model("SinkAttention", inputs, case.attributes, body=False).SerializeToString()


def define(case: Case, inputs: Inputs) -> list[torch.Tensor]:
    return list(torch.ops.gptoss.sink_attention(*inputs.values(), *case.attributes.values()))


@cache
def defined_calls(
    layers: tuple[tuple[Case, tuple[int, ...], int], ...], dtype: torch.dtype
) -> list[tuple[Case, Inputs, torch.Tensor]]:
    """Return each layer, the inputs of its cached call and the output that the definition gives.

    Computed once for all levels; not to be changed.

    Args:
        layers: layer and call, cached tokens a row, capacity.
        dtype: of the caches.
    """
    calls = [(case, cached_call(case, past, capacity, dtype)) for case, past, capacity in layers]
    return [(case, inputs, define(case, inputs)[0]) for case, inputs in calls]


def assert_output(
    found: torch.Tensor, expected: torch.Tensor, new: torch.Tensor, tolerance: float
) -> None:
    real = real_tokens(expected.shape[1], new)
    torch.testing.assert_close(found[real], expected[real], atol=tolerance, rtol=0)
    assert torch.isfinite(found).all()
