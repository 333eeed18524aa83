"""Where a router chooses by a hair: another order of the same float32 sums may choose otherwise.

A token that is sent to another expert has other logits, and so has every later token that attends
to it. Neither choice is wrong. Legend: T positions, E experts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.experts_int4 import MixtureOfExpertsInt4
from gptoss_onnx.reference.layers import MixtureOfExperts

# Router logits of one token. Float32 sums in another order move them by about 1e-6 in small models
# and 1e-5 in deep ones.
NEAR = 1e-4


@contextmanager
def near_ties(model: Decoder, near: float = NEAR) -> Iterator[list[Tensor]]:
    """Record the near-ties of every forward pass inside the block.

    Yields a list that receives one boolean tensor (T) a router: true where the last expert that is
    chosen and the first that is not are less than `near` apart.
    """
    found: list[Tensor] = []

    def recorder(top_k: int) -> Any:
        def record(_: Any, __: Any, logits: Tensor) -> None:
            if top_k < logits.shape[-1]:
                best = logits.float().topk(top_k + 1).values  # (T, top_k + 1)
                found.append(best[:, -2] - best[:, -1] < near)

        return record

    hooks = [
        mixture.router.register_forward_hook(recorder(mixture.attributes.top_k))
        for mixture in model.modules()
        if isinstance(mixture, (MixtureOfExperts, MixtureOfExpertsInt4))
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def decided(ties: list[Tensor], count: int) -> Tensor:
    """Return a boolean tensor (T) for `count` positions of one sequence: true before its first
    near-tie.
    """
    near = torch.zeros(count, dtype=torch.bool)
    for tie in ties:
        near |= tie
    return ~near.cummax(0).values
