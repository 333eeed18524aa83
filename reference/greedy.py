"""Greedy decoding with the reference: the continuation that packages and clients are compared with."""

from collections.abc import Sequence

import torch

from gptoss_onnx.reference.model import GptOss


@torch.inference_mode()
def greedy(model: GptOss, token_ids: Sequence[int], count: int) -> list[int]:
    """Return the `count` tokens that follow `token_ids`, each the lowest id of the largest logit.

    The prompt is one call, each further token one more over the cache; stop tokens do not stop it.
    """
    cache = model.new_cache(1, len(token_ids) + count)
    past = torch.zeros(1, dtype=torch.int64, device=model.inv_freq.device)
    pending = torch.tensor([token_ids], dtype=torch.int64, device=past.device)
    chosen: list[int] = []
    while len(chosen) < count:
        new = torch.full_like(past, pending.shape[1])
        logits, cache = model(pending, past, new, new.unsqueeze(1) - 1, cache)
        chosen.append(int(logits[0, 0].argmax()))
        past, pending = past + new, torch.tensor([[chosen[-1]]], device=past.device)
    return chosen
