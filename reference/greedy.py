"""Greedy decoding with the reference: the continuation that packages and clients are compared
with.
"""

from collections.abc import Sequence

import torch

from gptoss_onnx.reference.decoder import Decoder


@torch.inference_mode()
def greedy(model: Decoder, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Return the `count` tokens that follow each prompt, each the lowest id of the largest logit.

    All prompts are one ragged call, each further token of all of them one more over the cache; stop
    tokens do not stop them.
    """
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    cache = model.new_cache(len(prompts), longest + count)
    device = model.device
    past = torch.zeros(len(prompts), dtype=torch.int64, device=device)
    new = torch.tensor(lengths, device=device)
    pending = torch.tensor(
        [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=device
    )
    chosen: list[torch.Tensor] = []
    while len(chosen) < count:
        logits, cache = model(pending, past, new, new.unsqueeze(1) - 1, cache)
        pending = logits.argmax(-1)  # (B, 1)
        chosen.append(pending)
        past, new = past + new, torch.ones_like(new)
    return torch.cat(chosen, dim=1).tolist()
