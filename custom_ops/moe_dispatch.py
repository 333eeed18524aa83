"""PyTorch definitions of `ai.gptoss::MoEDispatch` and `MoEDispatchMXFP4`: route, run the chosen
experts, combine.

Formula: openai/gpt-oss `gpt_oss/torch/model.py`, `MLPBlock`; what stands between the projections is
in `moe_activation.py`, and what the attributes mean in `moe_attributes.py`.

Legend: N tokens, Hd hidden size, E experts, I expert width. With an un-gated activation, I stands
where 2I is written.
"""

from collections.abc import Callable

import torch

from gptoss_onnx.custom_ops.checks import (
    expect_flag,
    expect_multiple,
    expect_rank,
    expect_shape,
)
from gptoss_onnx.custom_ops.moe_activation import activate
from gptoss_onnx.custom_ops.moe_attributes import MoEAttributes
from gptoss_onnx.custom_ops.moe_routing import route
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, BYTES_PER_BLOCK, decode_mxfp4

# Given an expert's number, its two weights in the compute dtype: gate_up (Hd, 2I) and down (I, Hd).
ExpertWeights = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


@torch.library.custom_op("gptoss::moe_dispatch", mutates_args=())
def moe_dispatch(
    hidden: torch.Tensor,
    router_logits: torch.Tensor,
    gate_up: torch.Tensor,
    gate_up_bias: torch.Tensor | None,
    down: torch.Tensor,
    down_bias: torch.Tensor | None,
    top_k: int,
    alpha: float,
    limit: float,
    beta: float = 1.0,
    activation: str = "swiglu",
    normalize: int = 1,
    interleaved: int = 1,
    transposed: int = 0,
) -> torch.Tensor:
    """Return the weighted sum of each token's top-k experts, for dense weights.

    Args:
        hidden: (N, Hd), any floating dtype; the dtype computed in.
        router_logits: (N, E).
        gate_up: (E, Hd, 2I), floating, as Hugging Face stores gpt-oss's.
        gate_up_bias: (E, 2I) or None.
        down: (E, I, Hd), floating.
        down_bias: (E, Hd) or None.
        top_k, alpha, limit, beta, activation, normalize, interleaved: see `MoEAttributes`.
        transposed: 1: gate_up is (E, 2I, Hd) and down (E, Hd, I), as a Linear stores its weight.

    Returns:
        (N, Hd) in the dtype of `hidden`.

    Raises:
        InputError: an attribute makes no sense, or the shapes do not fit.
    """
    op = "MoEDispatch"
    attributes = MoEAttributes(top_k, alpha, limit, beta, activation, normalize, interleaved)
    expect_flag(op, "transposed", transposed)
    rows = attributes.rows_legend
    up_legend = f"(E, {rows}, Hd)" if transposed else f"(E, Hd, {rows})"
    down_legend = "(E, Hd, I)" if transposed else "(E, I, Hd)"
    expect_rank(op, "gate_up", gate_up, 3, up_legend)
    experts, size, width = sizes_of(
        op, hidden, router_logits, gate_up.shape[1 if transposed else 2], attributes
    )
    wide = attributes.rows_each * width
    up_shape = (experts, wide, size) if transposed else (experts, size, wide)
    down_shape = (experts, size, width) if transposed else (experts, width, size)
    expect_shape(op, "gate_up", gate_up, up_shape, up_legend)
    expect_shape(op, "down", down, down_shape, down_legend)
    _check_bias(op, "gate_up_bias", gate_up_bias, (experts, wide), f"(E, {rows})")
    _check_bias(op, "down_bias", down_bias, (experts, size), "(E, Hd)")

    def weights(expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        both = gate_up[expert].to(hidden.dtype), down[expert].to(hidden.dtype)
        return (both[0].T, both[1].T) if transposed else both

    return dispatch(hidden, router_logits, weights, gate_up_bias, down_bias, attributes)


@torch.library.custom_op("gptoss::moe_dispatch_mxfp4", mutates_args=())
def moe_dispatch_mxfp4(
    hidden: torch.Tensor,
    router_logits: torch.Tensor,
    gate_up_blocks: torch.Tensor,
    gate_up_scales: torch.Tensor,
    gate_up_bias: torch.Tensor | None,
    down_blocks: torch.Tensor,
    down_scales: torch.Tensor,
    down_bias: torch.Tensor | None,
    top_k: int,
    alpha: float,
    limit: float,
    beta: float = 1.0,
    activation: str = "swiglu",
    normalize: int = 1,
) -> torch.Tensor:
    """Return the weighted sum of each token's top-k experts, for MXFP4 weights as the checkpoint
    stores them: gate and up rows interleaved.

    Args:
        hidden: (N, Hd), any floating dtype; the dtype computed in.
        router_logits: (N, E).
        gate_up_blocks: uint8 (E, 2I, Hd/32, 16).
        gate_up_scales: uint8 (E, 2I, Hd/32).
        gate_up_bias: (E, 2I) or None.
        down_blocks: uint8 (E, Hd, I/32, 16).
        down_scales: uint8 (E, Hd, I/32).
        down_bias: (E, Hd) or None.
        top_k, alpha, limit, beta, activation, normalize: see `MoEAttributes`.

    Returns:
        (N, Hd) in the dtype of `hidden`.

    Raises:
        InputError: an attribute makes no sense, or the shapes do not fit.
    """
    op = "MoEDispatchMXFP4"
    attributes = MoEAttributes(top_k, alpha, limit, beta, activation, normalize)
    rows, each = attributes.rows_legend, attributes.rows_each
    scales_legend = f"(E, {rows}, Hd/32)"
    expect_rank(op, "gate_up_scales", gate_up_scales, 3, scales_legend)
    experts, size, width = sizes_of(op, hidden, router_logits, gate_up_scales.shape[1], attributes)
    expect_multiple(op, "hidden", hidden, 1, BLOCK, "(N, Hd) with Hd a multiple of 32")
    blocks_legend = f"(E, {rows}, Hd/32, 16)"
    multiple = f"{scales_legend} with I a multiple of 32"
    expect_multiple(op, "gate_up_scales", gate_up_scales, 1, each * BLOCK, multiple)
    scales = (experts, each * width, size // BLOCK)
    expect_shape(op, "gate_up_blocks", gate_up_blocks, (*scales, BYTES_PER_BLOCK), blocks_legend)
    expect_shape(op, "gate_up_scales", gate_up_scales, scales, scales_legend)
    scales = (experts, size, width // BLOCK)
    expect_shape(op, "down_blocks", down_blocks, (*scales, BYTES_PER_BLOCK), "(E, Hd, I/32, 16)")
    expect_shape(op, "down_scales", down_scales, scales, "(E, Hd, I/32)")
    _check_bias(op, "gate_up_bias", gate_up_bias, (experts, each * width), f"(E, {rows})")
    _check_bias(op, "down_bias", down_bias, (experts, size), "(E, Hd)")

    def weights(expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        # (2I, Hd)
        gate_up = decode_mxfp4(gate_up_blocks[expert], gate_up_scales[expert], hidden.dtype)
        down = decode_mxfp4(down_blocks[expert], down_scales[expert], hidden.dtype)  # (Hd, I)
        return gate_up.T, down.T

    return dispatch(hidden, router_logits, weights, gate_up_bias, down_bias, attributes)


@moe_dispatch.register_fake
def _(hidden: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(hidden)


@moe_dispatch_mxfp4.register_fake
def _(hidden: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(hidden)


def sizes_of(
    op: str,
    hidden: torch.Tensor,
    router_logits: torch.Tensor,
    rows: int,
    attributes: MoEAttributes,
) -> tuple[int, int, int]:
    """Return E, Hd and I, of gate_up's `rows`, after a look at the attributes and at the two inputs
    that all other shapes follow from.
    """
    expect_rank(op, "hidden", hidden, 2, "(N, Hd)")
    expect_rank(op, "router_logits", router_logits, 2, "(N, E)")
    tokens, experts = hidden.shape[0], router_logits.shape[1]
    expect_shape(op, "router_logits", router_logits, (tokens, experts), "(N, E)")
    attributes.check(op, experts)
    return experts, hidden.shape[1], rows // attributes.rows_each


def _check_bias(
    op: str, name: str, bias: torch.Tensor | None, shape: tuple[int, int], legend: str
) -> None:
    if bias is not None:
        expect_shape(op, name, bias, shape, legend)


def dispatch(
    hidden: torch.Tensor,
    router_logits: torch.Tensor,
    weights: ExpertWeights,
    gate_up_bias: torch.Tensor | None,
    down_bias: torch.Tensor | None,
    attributes: MoEAttributes,
) -> torch.Tensor:
    """Return what `moe_dispatch` does, for experts whose weights `weights` gives one by one."""
    chosen, shares = route(router_logits.to(hidden.dtype), attributes.top_k, attributes.normalize)
    output = torch.zeros_like(hidden)
    for expert in chosen.unique().tolist():
        tokens, rank = torch.nonzero(chosen == expert, as_tuple=True)
        gate_up, down = weights(expert)
        wide = _affine(hidden[tokens], gate_up, gate_up_bias, expert)  # (n, 2I)
        result = _affine(activate(wide, attributes), down, down_bias, expert)  # (n, Hd)
        output.index_add_(0, tokens, shares[tokens, rank].unsqueeze(-1) * result)
    return output


def _affine(
    x: torch.Tensor, weight: torch.Tensor, biases: torch.Tensor | None, expert: int
) -> torch.Tensor:
    product = x @ weight
    return product if biases is None else product + biases[expert].to(x.dtype)
