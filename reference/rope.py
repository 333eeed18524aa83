"""Frequencies of the rotary embedding, plain or YaRN-scaled.

YaRN: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", arXiv
    2309.00071,
sections 3.2 to 3.4. The order of the floating-point operations follows `_compute_yarn_parameters`
in `transformers/modeling_rope_utils.py`, so that the result is the same bit for bit.

Legend: D head dim.
"""

import math

import torch
from torch import Tensor

from gptoss_onnx.reference.config import ModelConfig, RopeConfig


def inverse_frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Return (inv_freq, attention_factor): radians a token, float32 (D/2,), and the factor on cos
    and sin.
    """
    rope = config.rope
    exponents = torch.arange(0, config.head_dim, 2).to(torch.float32) / config.head_dim  # (D/2,)
    wavelengths = rope.theta**exponents
    extrapolated = 1.0 / wavelengths
    if rope.kind == "default":
        return extrapolated, 1.0
    interpolated = 1.0 / (rope.factor * wavelengths)
    kept = 1 - _ramp(*_correction_range(rope, config.head_dim), config.head_dim // 2)
    return interpolated * (1 - kept) + extrapolated * kept, _attention_factor(rope)


def _correction_range(rope: RopeConfig, head_dim: int) -> tuple[float, float]:
    """Dimensions between which the ramp goes from extrapolation (fast) to interpolation (slow)."""
    low, high = (
        _dimension_of(rotations, rope, head_dim) for rotations in (rope.beta_fast, rope.beta_slow)
    )
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, head_dim - 1)


def _dimension_of(rotations: float, rope: RopeConfig, head_dim: int) -> float:
    """The dimension that turns `rotations` times over the original context (section 3.2, solved for
    d).
    """
    length = rope.original_max_position_embeddings
    return (head_dim * math.log(length / (rotations * 2 * math.pi))) / (2 * math.log(rope.theta))


def _ramp(low: float, high: float, count: int) -> Tensor:
    """0 up to `low`, 1 from `high` on, linear between: float32 (count,)."""
    if low == high:
        high += 0.001  # transformers' own guard against a division by zero
    return torch.clamp((torch.arange(count, dtype=torch.float32) - low) / (high - low), 0, 1)


def _attention_factor(rope: RopeConfig) -> float:
    """Section 3.4: √(1/t) = 0.1·ln(s) + 1, unless the checkpoint fixes another value."""
    if rope.attention_factor is not None:
        return rope.attention_factor
    return 1.0 if rope.factor <= 1 else 0.1 * math.log(rope.factor) + 1.0
