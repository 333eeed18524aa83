"""Random inputs of LinearPacked. Legend: N tokens, K input width, M output width."""

import torch
from torch import Tensor

from gptoss_onnx.custom_ops.linear_packed import pack

Inputs = dict[str, Tensor | None]
PARTS = ("low", "high", "bases", "positions", "values")


def random_weight(rows: int, depth: int, seed: int = 0, exceptional: float = 0.01) -> Tensor:
    """Return a bfloat16 weight (M, K): normal, a share of it far smaller or larger, some zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, depth, generator=generator)
    weight *= torch.exp2(torch.randint(-8, 3, (rows, 1), generator=generator).float())
    place = torch.rand(rows, depth, generator=generator)
    weight[place < exceptional] *= 2.0**-16
    weight[place > 1 - exceptional / 4] *= 2.0**6
    weight[(place > 0.4) & (place < 0.4 + exceptional)] = 0
    return weight.to(torch.bfloat16)


def packed_parts(weight: Tensor) -> dict[str, Tensor]:
    """Return the five operands that hold a bfloat16 weight (M, K)."""
    packed = pack(weight)
    return {name: getattr(packed, name) for name in PARTS}


def packed_inputs(tokens: int, depth: int, rows: int, with_bias: bool, seed: int = 0) -> Inputs:
    """Return x (N, K), a packed weight (M, K) and, where asked for, bias (M)."""
    generator = torch.Generator().manual_seed(seed + 1)
    return {
        "x": torch.randn(tokens, depth, generator=generator),
        **packed_parts(random_weight(rows, depth, seed)),
        "bias": torch.randn(rows, generator=generator) if with_bias else None,
    }
