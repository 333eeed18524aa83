"""Random inputs of LinearInt8, and how far a kernel may be off. Legend: N tokens, K input width, M
output width.
"""

import torch

from gptoss_onnx.custom_ops.linear_int8 import BLOCK
from support.tolerances import NATIVE_INT8, NATIVE_INT8_STEP

Inputs = dict[str, torch.Tensor | None]


def int8_inputs(tokens: int, depth: int, rows: int, with_bias: bool, seed: int = 0) -> Inputs:
    """Return x (N, K), weight (M, K), scales (M, K/32) of about 1/127 and, where asked for, bias
    (M).
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(tokens, depth, generator=generator),
        "weight": torch.randint(-127, 128, (rows, depth), generator=generator, dtype=torch.int8),
        "scales": (0.5 + torch.rand(rows, depth // BLOCK, generator=generator)) / 127,
        "bias": torch.randn(rows, generator=generator) if with_bias else None,
    }


def in_float64(inputs: Inputs) -> Inputs:
    """Return the inputs with all floats in float64."""
    return {
        name: x if x is None or x.dtype == torch.int8 else x.double() for name, x in inputs.items()
    }


def allowed_error(inputs: Inputs, mode: str) -> torch.Tensor:
    """Return how far each output (N, M) of an activation mode may be from the definition in
    float64.

    A share of what its terms add up to without their signs, and a step of a block's largest value
    for each of them.
    """
    wide = in_float64(inputs)
    x = wide["x"].abs()
    largest = (
        x.unflatten(1, (-1, BLOCK)).amax(2).repeat_interleave(BLOCK, dim=1) if x.numel() else x
    )
    # −128 has no magnitude in 8 bits
    weight, scales = inputs["weight"].short().abs(), wide["scales"].abs()
    bias = None if wide["bias"] is None else wide["bias"].abs()
    terms = torch.ops.gptoss.linear_int8(x, weight, scales, bias)
    steps = torch.ops.gptoss.linear_int8(largest, weight, scales, None)
    return NATIVE_INT8[mode] * terms + NATIVE_INT8_STEP[mode] * steps


def largest_weight(inputs: Inputs) -> torch.Tensor:
    """Return each row's largest |weight · scale| in float64, (M); 0 where K is 0."""
    weight, scales = inputs["weight"], inputs["scales"].double().abs()
    blocks = (
        weight.double().abs().unflatten(1, (-1, BLOCK)) if weight.numel() else scales[..., None]
    )
    largest = (blocks * scales.unsqueeze(2)).flatten(1)
    return torch.nn.functional.pad(largest, (0, 1)).amax(1)
