"""PyTorch definition of `ai.gptoss::Linear`: a projection whose weight stays in the checkpoint's
dtype.

Legend: N tokens, K input width, M output width.
"""

import torch

from gptoss_onnx.custom_ops.checks import check_linear


@torch.library.custom_op("gptoss::linear", mutates_args=())
def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    transposed: bool = False,
) -> torch.Tensor:
    """Return x · weightᵀ + bias, computed in the dtype of `x`.

    Args:
        x: (N, K), any floating dtype.
        weight: (M, K) as the checkpoint stores it.
        bias: (M) or None.
        transposed: the weight is (K, M) instead, as GPT-2's Conv1D stores it.

    Returns:
        (N, M) in the dtype of `x`.

    Raises:
        InputError: the shapes do not fit.
    """
    check_linear("Linear", x, weight, bias, transposed)
    rows = weight.T if transposed else weight
    return torch.nn.functional.linear(
        x, rows.to(x.dtype), None if bias is None else bias.to(x.dtype)
    )


@linear.register_fake
def _(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    transposed: bool = False,
) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[1 if transposed else 0])
