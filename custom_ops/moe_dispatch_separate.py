"""PyTorch definition of `ai.gptoss::MoEDispatchSeparate`: MoEDispatch on matrices that lie apart.

Checkpoints that store experts one by one, as Mixtral's and Qwen3-MoE's, are read where they lie.

Legend: N tokens, Hd hidden size, E experts, I expert width.
"""

from collections.abc import Sequence

import torch

from gptoss_onnx.custom_ops.checks import expect_count, expect_rank, expect_shape
from gptoss_onnx.custom_ops.moe_attributes import MoEAttributes
from gptoss_onnx.custom_ops.moe_dispatch import dispatch, sizes_of


@torch.library.custom_op("gptoss::moe_dispatch_separate", mutates_args=())
def moe_dispatch_separate(
    hidden: torch.Tensor,
    router_logits: torch.Tensor,
    gates: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
    downs: Sequence[torch.Tensor],
    top_k: int,
    alpha: float,
    limit: float,
    beta: float = 1.0,
    normalize: int = 1,
) -> torch.Tensor:
    """Return the weighted sum of each token's top-k experts, gated and without biases.

    The ONNX op takes the matrices as one variadic input: the gates, then the ups, then the downs.

    Args:
        hidden: (N, Hd), any floating dtype; the dtype computed in.
        router_logits: (N, E).
        gates: E matrices (I, Hd), floating.
        ups: E matrices (I, Hd), floating.
        downs: E matrices (Hd, I), floating.
        top_k, alpha, limit, beta, normalize: see `MoEAttributes`.

    Returns:
        (N, Hd) in the dtype of `hidden`.

    Raises:
        InputError: an attribute makes no sense, or the shapes do not fit.
    """
    op = "MoEDispatchSeparate"
    attributes = MoEAttributes(top_k, alpha, limit, beta, normalize=normalize, interleaved=0)
    matrices = {"gates": gates, "ups": ups, "downs": downs}
    experts, size, _ = sizes_of(op, hidden, router_logits, 0, attributes)
    for name, some in matrices.items():
        expect_count(op, name, some, experts, "E, as many as the router has experts")
    expect_rank(op, "gate_0", gates[0], 2, "(I, Hd)")
    width = gates[0].shape[0]
    for expert in range(experts):
        expect_shape(op, f"gate_{expert}", gates[expert], (width, size), "(I, Hd)")
        expect_shape(op, f"up_{expert}", ups[expert], (width, size), "(I, Hd)")
        expect_shape(op, f"down_{expert}", downs[expert], (size, width), "(Hd, I)")

    def weights(expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        gate_up = torch.cat((gates[expert], ups[expert])).to(hidden.dtype)  # (2I, Hd)
        return gate_up.T, downs[expert].to(hidden.dtype).T

    return dispatch(hidden, router_logits, weights, None, None, attributes)


@moe_dispatch_separate.register_fake
def _(hidden: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(hidden)
