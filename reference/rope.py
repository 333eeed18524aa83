"""Frequencies of the rotary embedding, plain or scaled.

YaRN: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", arXiv
2309.00071, sections 3.2 to 3.4. The order of the floating-point operations follows
`transformers/modeling_rope_utils.py`, so that the result is the same bit for bit.

Legend: R rotary width, the dimensions of a head that rotate.
"""

import math

import torch
from torch import Tensor

from gptoss_onnx.reference.config import RopeConfig


def inverse_frequencies(rope: RopeConfig) -> tuple[Tensor, float]:
    """Return (inv_freq, factor): radians a token, float32 (R/2,), and the factor on cos and sin."""
    exponents = torch.arange(0, rope.width, 2).to(torch.float32) / rope.width  # (R/2,)
    wavelengths = rope.theta**exponents
    plain = 1.0 / wavelengths
    if rope.kind == "linear":
        return plain / rope.factor, 1.0
    if rope.kind == "llama3":
        return _llama3(plain, rope), 1.0
    if rope.kind == "yarn":
        interpolated = 1.0 / (rope.factor * wavelengths)
        kept = 1 - _ramp(*_correction_range(rope), rope.width // 2)
        return interpolated * (1 - kept) + plain * kept, _attention_factor(rope)
    return plain, 1.0


def _llama3(plain: Tensor, rope: RopeConfig) -> Tensor:
    """Stretch long wavelengths by the factor, keep short ones, blend between (Llama 3.1)."""
    low, high, length = rope.beta_slow, rope.beta_fast, rope.original_longest
    wavelengths = 2 * math.pi / plain
    stretched = torch.where(wavelengths > length / low, plain / rope.factor, plain)
    smooth = (length / wavelengths - low) / (high - low)
    blended = (1 - smooth) * stretched / rope.factor + smooth * stretched
    between = ~(wavelengths < length / high) * ~(wavelengths > length / low)
    return torch.where(between, blended, stretched)


def _correction_range(rope: RopeConfig) -> tuple[float, float]:
    """Dimensions between which the ramp goes from extrapolation (fast) to interpolation (slow)."""
    low, high = (_dimension_of(rotations, rope) for rotations in (rope.beta_fast, rope.beta_slow))
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, rope.width - 1)


def _dimension_of(rotations: float, rope: RopeConfig) -> float:
    """The dimension that turns `rotations` times over the original context (section 3.2)."""
    length = rope.original_longest
    return (rope.width * math.log(length / (rotations * 2 * math.pi))) / (2 * math.log(rope.theta))


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
