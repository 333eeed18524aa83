"""PyTorch definitions of `ai.gptoss::MoEDispatch` and `MoEDispatchMXFP4`: route, run the chosen
experts, combine.

The expert is gpt-oss's clamped SwiGLU; formula: openai/gpt-oss `gpt_oss/torch/model.py`, `swiglu`
and `MLPBlock`.

Legend: N tokens, Hd hidden size, E experts, I expert width. Gate and up rows are interleaved: even
    gate, odd up.
"""

from collections.abc import Callable

import torch

from gptoss_onnx.custom_ops.checks import check_experts, expect_multiple, expect_rank, expect_shape
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, BYTES_PER_BLOCK, decode_mxfp4

# Given an expert's number, its two weights in the compute dtype: gate_up (Hd, 2I) and down (I, Hd).
ExpertWeights = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


@torch.library.custom_op("gptoss::moe_dispatch", mutates_args=())
def moe_dispatch(
    hidden: torch.Tensor,
    router_logits: torch.Tensor,
    gate_up: torch.Tensor,
    gate_up_bias: torch.Tensor,
    down: torch.Tensor,
    down_bias: torch.Tensor,
    top_k: int,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """Return the weighted sum of each token's top-k experts, for dense weights as Hugging Face
    stores them.

    Args:
        hidden: (N, Hd), any floating dtype; the dtype computed in.
        router_logits: (N, E).
        gate_up: (E, Hd, 2I), floating.
        gate_up_bias: (E, 2I).
        down: (E, I, Hd), floating.
        down_bias: (E, Hd).
        top_k: experts a token is sent to; ties go to the lower index, as ONNX TopK.
        alpha: gain inside the sigmoid.
        limit: clamp of gate (above) and up (both sides).

    Returns:
        (N, Hd) in the dtype of `hidden`.

    Raises:
        InputError: an attribute makes no sense, or the shapes do not fit.
    """
    op = "MoEDispatch"
    expect_rank(op, "gate_up", gate_up, 3, "(E, Hd, 2I)")
    experts, width = _sizes(op, hidden, router_logits, gate_up.shape[2])
    check_experts(op, experts, top_k, alpha, limit)
    expect_shape(op, "gate_up", gate_up, (experts, hidden.shape[1], 2 * width), "(E, Hd, 2I)")
    expect_shape(op, "gate_up_bias", gate_up_bias, (experts, 2 * width), "(E, 2I)")
    expect_shape(op, "down", down, (experts, width, hidden.shape[1]), "(E, I, Hd)")
    expect_shape(op, "down_bias", down_bias, (experts, hidden.shape[1]), "(E, Hd)")

    def weights(expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        return gate_up[expert].to(hidden.dtype), down[expert].to(hidden.dtype)

    return dispatch(hidden, router_logits, weights, gate_up_bias, down_bias, top_k, alpha, limit)


@torch.library.custom_op("gptoss::moe_dispatch_mxfp4", mutates_args=())
def moe_dispatch_mxfp4(
    hidden: torch.Tensor,
    router_logits: torch.Tensor,
    gate_up_blocks: torch.Tensor,
    gate_up_scales: torch.Tensor,
    gate_up_bias: torch.Tensor,
    down_blocks: torch.Tensor,
    down_scales: torch.Tensor,
    down_bias: torch.Tensor,
    top_k: int,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """Return the weighted sum of each token's top-k experts, for MXFP4 weights as the checkpoint
    stores them.

    Args:
        hidden: (N, Hd), any floating dtype; the dtype computed in.
        router_logits: (N, E).
        gate_up_blocks: uint8 (E, 2I, Hd/32, 16).
        gate_up_scales: uint8 (E, 2I, Hd/32).
        gate_up_bias: (E, 2I).
        down_blocks: uint8 (E, Hd, I/32, 16).
        down_scales: uint8 (E, Hd, I/32).
        down_bias: (E, Hd).
        top_k: experts a token is sent to; ties go to the lower index, as ONNX TopK.
        alpha: gain inside the sigmoid.
        limit: clamp of gate (above) and up (both sides).

    Returns:
        (N, Hd) in the dtype of `hidden`.

    Raises:
        InputError: an attribute makes no sense, or the shapes do not fit.
    """
    op = "MoEDispatchMXFP4"
    expect_rank(op, "gate_up_scales", gate_up_scales, 3, "(E, 2I, Hd/32)")
    experts, width = _sizes(op, hidden, router_logits, gate_up_scales.shape[1])
    check_experts(op, experts, top_k, alpha, limit)
    expect_multiple(op, "hidden", hidden, 1, BLOCK, "(N, Hd) with Hd a multiple of 32")
    size, groups = hidden.shape[1], hidden.shape[1] // BLOCK
    expect_multiple(
        op, "gate_up_scales", gate_up_scales, 1, 2 * BLOCK, "(E, 2I, Hd/32) with I a multiple of 32"
    )
    expect_shape(
        op,
        "gate_up_blocks",
        gate_up_blocks,
        (experts, 2 * width, groups, BYTES_PER_BLOCK),
        "(E, 2I, Hd/32, 16)",
    )
    expect_shape(
        op, "gate_up_scales", gate_up_scales, (experts, 2 * width, groups), "(E, 2I, Hd/32)"
    )
    expect_shape(op, "gate_up_bias", gate_up_bias, (experts, 2 * width), "(E, 2I)")
    blocks = (experts, size, width // BLOCK, BYTES_PER_BLOCK)
    expect_shape(op, "down_blocks", down_blocks, blocks, "(E, Hd, I/32, 16)")
    expect_shape(op, "down_scales", down_scales, (experts, size, width // BLOCK), "(E, Hd, I/32)")
    expect_shape(op, "down_bias", down_bias, (experts, size), "(E, Hd)")

    def weights(expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        # (2I, Hd)
        gate_up = decode_mxfp4(gate_up_blocks[expert], gate_up_scales[expert], hidden.dtype)
        down = decode_mxfp4(down_blocks[expert], down_scales[expert], hidden.dtype)  # (Hd, I)
        return gate_up.T, down.T

    return dispatch(hidden, router_logits, weights, gate_up_bias, down_bias, top_k, alpha, limit)


@moe_dispatch.register_fake
def _(hidden: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(hidden)


@moe_dispatch_mxfp4.register_fake
def _(hidden: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(hidden)


def _sizes(
    op: str, hidden: torch.Tensor, router_logits: torch.Tensor, rows: int
) -> tuple[int, int]:
    """Return E and I, of `rows` = 2I, after a look at the two inputs that all other shapes follow
    from.
    """
    expect_rank(op, "hidden", hidden, 2, "(N, Hd)")
    expect_rank(op, "router_logits", router_logits, 2, "(N, E)")
    experts = router_logits.shape[1]
    expect_shape(op, "router_logits", router_logits, (hidden.shape[0], experts), "(N, E)")
    return experts, rows // 2


def route(router_logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's chosen experts, int64 (N, top_k), and their softmax weights (N, top_k).

    A stable descending sort gives ties to the lower index; `torch.topk` promises no order among
    ties.
    """
    logits, experts = torch.sort(router_logits, dim=-1, descending=True, stable=True)
    return experts[:, :top_k], logits[:, :top_k].softmax(dim=-1)


def clamped_swiglu(gate_up: torch.Tensor, alpha: float, limit: float) -> torch.Tensor:
    """Return (up + 1) · gate · σ(alpha · gate) of interleaved (N, 2I), both clamped first; result
    (N, I).
    """
    gate = gate_up[:, 0::2].clamp(max=limit)
    up = gate_up[:, 1::2].clamp(min=-limit, max=limit)
    return (up + 1) * gate * torch.sigmoid(alpha * gate)


def dispatch(
    hidden: torch.Tensor,
    router_logits: torch.Tensor,
    weights: ExpertWeights,
    gate_up_bias: torch.Tensor,
    down_bias: torch.Tensor,
    top_k: int,
    alpha: float,
    limit: float,
) -> torch.Tensor:
    """Return what `moe_dispatch` does, for experts whose weights `weights` gives one by one."""
    chosen, shares = route(router_logits.to(hidden.dtype), top_k)
    output = torch.zeros_like(hidden)
    for expert in chosen.unique().tolist():
        tokens, rank = torch.nonzero(chosen == expert, as_tuple=True)
        gate_up, down = weights(expert)
        activated = clamped_swiglu(
            hidden[tokens] @ gate_up + gate_up_bias[expert].to(hidden.dtype), alpha, limit
        )
        result = activated @ down + down_bias[expert].to(hidden.dtype)  # (n, Hd)
        output.index_add_(0, tokens, shares[tokens, rank].unsqueeze(-1) * result)
    return output
