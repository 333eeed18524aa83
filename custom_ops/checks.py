"""What the definitions refuse, as the native kernels do: attributes without sense, and shapes that
do not fit.

PyTorch would broadcast some of the shapes and slice with some of the attributes, and return numbers
that mean nothing.
"""

from collections.abc import Sequence

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


def expect_count(
    op: str, name: str, tensors: Sequence[torch.Tensor], expected: int, legend: str
) -> None:
    """Raise InputError unless an input that is several matrices has `expected` of them."""
    if len(tensors) != expected:
        raise InputError(
            f"{op}: input '{name}': found {len(tensors)} matrices, expected {expected} = {legend}"
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


def expect_attribute(op: str, name: str, value: float | str, holds: bool, expected: str) -> None:
    """Raise InputError naming an attribute where `holds` is false."""
    if not holds:
        raise InputError(f"{op}: attribute '{name}': found {value}, expected {expected}")


def expect_flag(op: str, name: str, value: int) -> None:
    """Raise InputError unless an attribute is 0 or 1."""
    expect_attribute(op, name, value, value in (0, 1), "0 or 1")


def check_linear(
    op: str,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    transposed: bool = False,
    name: str = "weight",
) -> None:
    """Refuse a projection (N, K) · (M, K)ᵀ + (M) whose shapes do not fit.

    With `transposed` the weight is (K, M). `name` is that of the input which holds it.
    """
    legend = "(K, M)" if transposed else "(M, K)"
    expect_rank(op, "x", x, 2, "(N, K)")
    expect_rank(op, name, weight, 2, legend)
    depth, rows = x.shape[1], weight.shape[1 if transposed else 0]
    expect_shape(op, name, weight, (depth, rows) if transposed else (rows, depth), legend)
    if bias is not None:
        expect_shape(op, "bias", bias, (rows,), "(M)")
