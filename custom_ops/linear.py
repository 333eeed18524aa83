"""PyTorch definition of `ai.gptoss::Linear`: a projection whose weight stays in the checkpoint's
dtype.

Legend: N tokens, K input width, M output width.
"""

import torch

from gptoss_onnx.custom_ops.checks import check_linear


@torch.library.custom_op("gptoss::linear", mutates_args=())
def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x · weightᵀ + bias, computed in the dtype of `x`.

    Args:
        x: (N, K), any floating dtype.
        weight: (M, K) as the checkpoint stores it.
        bias: (M) or None.

    Returns:
        (N, M) in the dtype of `x`.

    Raises:
        InputError: the shapes do not fit.
    """
    check_linear("Linear", x, weight, bias)
    return torch.nn.functional.linear(
        x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    )


@linear.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])
