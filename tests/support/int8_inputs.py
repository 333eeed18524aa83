"""Random inputs of LinearInt8. Legend: N tokens, K input width, M output width."""

import torch

from gptoss_onnx.custom_ops.linear_int8 import BLOCK

Inputs = dict[str, torch.Tensor | None]


def int8_inputs(tokens: int, depth: int, rows: int, with_bias: bool, seed: int = 0) -> Inputs:
    """Return x (N, K), weight (M, K), scales (M, K/32) of about 1/127 and, where asked for, bias (M)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(tokens, depth, generator=generator),
        "weight": torch.randint(-127, 128, (rows, depth), generator=generator, dtype=torch.int8),
        "scales": (0.5 + torch.rand(rows, depth // BLOCK, generator=generator)) / 127,
        "bias": torch.randn(rows, generator=generator) if with_bias else None,
    }
