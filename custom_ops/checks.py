"""What the definitions refuse, as the native kernels do: attributes without sense, and shapes that
do not fit.

PyTorch would broadcast some of the shapes and slice with some of the attributes, and return numbers
that mean nothing.
"""

import math

import torch

from gptoss_onnx.errors import InputError


def expect_shape(
    op: str, name: str, tensor: torch.Tensor, expected: tuple[int, ...], legend: str
) -> None:
    """Raise InputError unless an input has the shape `expected`, which `legend` spells in
    letters.
    """
    if tuple(tensor.shape) != expected:
        raise InputError(
            f"{op}: input '{name}': found shape {tuple(tensor.shape)}, expected {expected} = "
            f"{legend}"
        )


def expect_rank(op: str, name: str, tensor: torch.Tensor, rank: int, legend: str) -> None:
    """Raise InputError unless an input has `rank` dimensions."""
    if tensor.dim() != rank:
        raise InputError(
            f"{op}: input '{name}': found shape {tuple(tensor.shape)}, expected rank {rank} "
            f"{legend}"
        )


def expect_multiple(
    op: str,
    name: str,
    tensor: torch.Tensor,
    dimension: int,
    factor: int,
    legend: str,
    least: int = 1,
) -> None:
    """Raise InputError unless a dimension of an input is a multiple of `factor`, and `least` or
    more.
    """
    size = tensor.shape[dimension]
    if size < least or size % factor != 0:
        raise InputError(
            f"{op}: input '{name}': found shape {tuple(tensor.shape)}, expected {legend}"
        )


def expect_attribute(op: str, name: str, value: float, holds: bool, expected: str) -> None:
    """Raise InputError naming an attribute where `holds` is false."""
    if not holds:
        raise InputError(f"{op}: attribute '{name}': found {value}, expected {expected}")


def check_experts(op: str, experts: int, top_k: int, alpha: float, limit: float) -> None:
    """Refuse to send tokens to no expert or to more than there are, and a clamp or gain without
    sense.
    """
    expect_attribute(
        op, "top_k", top_k, 1 <= top_k <= experts, f"1 to {experts}, the number of experts"
    )
    expect_attribute(op, "alpha", alpha, math.isfinite(alpha), "a finite number")
    expect_attribute(op, "limit", limit, limit >= 0, "at least 0")


def check_linear(op: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Refuse a projection (N, K) · (M, K)ᵀ + (M) whose shapes do not fit."""
    expect_rank(op, "x", x, 2, "(N, K)")
    expect_rank(op, "weight", weight, 2, "(M, K)")
    expect_shape(op, "weight", weight, (weight.shape[0], x.shape[1]), "(M, K)")
    if bias is not None:
        expect_shape(op, "bias", bias, (weight.shape[0],), "(M)")
