"""Which experts each token goes to, and with what share.

Legend: N tokens, E experts.
"""

import torch


def route(
    router_logits: torch.Tensor, top_k: int, normalize: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's chosen experts, int64 (N, top_k), and their shares (N, top_k).

    A stable descending sort gives ties to the lower index; `torch.topk` promises no order among
    ties.

    Args:
        router_logits: (N, E), floating.
        top_k: experts a token is sent to.
        normalize: 1 makes the shares a softmax over the chosen logits; 0 takes them from the
            softmax over all experts, as they are.
    """
    logits, experts = torch.sort(router_logits, dim=-1, descending=True, stable=True)
    if normalize:
        return experts[:, :top_k], logits[:, :top_k].softmax(dim=-1)
    return experts[:, :top_k], logits.softmax(dim=-1)[:, :top_k]
