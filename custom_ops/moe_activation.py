"""What stands between the two projections of an expert.

The gated activation is gpt-oss's clamped SwiGLU; formula: openai/gpt-oss `gpt_oss/torch/model.py`,
`swiglu`. Its alpha, limit and beta make it that of Mixtral and Qwen as well.

Legend: N tokens, I expert width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from gptoss_onnx.custom_ops.moe_attributes import GATED, MoEAttributes

_UNGATED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def activate(gate_up: torch.Tensor, attributes: MoEAttributes) -> torch.Tensor:
    """Return the activations (N, I) of gate and up (N, 2I), or of (N, I) where it has no gate."""
    if attributes.activation != GATED:
        return _UNGATED[attributes.activation](gate_up)
    if attributes.interleaved:
        return clamped_swiglu(gate_up[:, 0::2], gate_up[:, 1::2], attributes)
    gate, up = gate_up.chunk(2, dim=1)
    return clamped_swiglu(gate, up, attributes)


def clamped_swiglu(gate: torch.Tensor, up: torch.Tensor, attributes: MoEAttributes) -> torch.Tensor:
    """Return (up + beta) · gate · σ(alpha · gate), both clamped first; all are (N, I)."""
    gate = gate.clamp(max=attributes.limit)
    up = up.clamp(min=-attributes.limit, max=attributes.limit)
    return (up + attributes.beta) * gate * torch.sigmoid(attributes.alpha * gate)
