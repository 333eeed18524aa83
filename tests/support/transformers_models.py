"""Tiny models of transformers: the judges of every architecture, and checkpoints that they write."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from gptoss_onnx.reference.architectures import ARCHITECTURES

logging.disable_progress_bar()
SPREAD = 1.5  # of weights, times 1/√(input width): wide enough that the logits say something
SHARD = "60KB"


@dataclass(frozen=True)
class Judged:
    """A model of transformers in float32, and the checkpoint that its `save_pretrained` wrote."""

    model: PreTrainedModel
    folder: Path
    vocab_size: int

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits of every position, (T, V), without a cache."""
        output = self.model(input_ids=torch.tensor([tokens]), use_cache=False)
        return output.logits[0]

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], prompt: int) -> torch.Tensor:
        """Return the logits (T, V) of a prompt in one call and each further token in one."""
        cache, found = None, []
        for piece in (tokens[:prompt], *([token] for token in tokens[prompt:])):
            ids = torch.tensor([piece])
            output = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            found.append(output.logits[0])
        return torch.cat(found)

    @torch.inference_mode()
    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens that follow, each of the largest logit."""
        cache, ids, found = None, torch.tensor([tokens]), []
        for _ in range(count):
            output = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache, ids = output.past_key_values, output.logits[:, -1].argmax(-1, keepdim=True)
            found.append(int(ids))
        return found


def write_by_transformers(
    model_type: str, changes: Mapping[str, Any], folder: Path, *, sharded: bool, seed: int = 0
) -> Judged:
    """Return a random model of an architecture's tiny shape, with `changes` to its config.json.

    It is saved by transformers into `folder`, in one file or in `sharded` ones.
    """
    document = dict(ARCHITECTURES[model_type].tiny) | dict(changes)
    settings = {key: value for key, value in document.items() if key != "quantization_config"}
    settings.pop("model_type")
    config = AutoConfig.for_model(model_type, **settings)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model = model.float().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.data = noise * SPREAD / math.sqrt(parameter.shape[-1])
        else:
            mean = 0.0 if name.endswith(("bias", "sinks")) else 1.0
            parameter.data = mean + 0.3 * noise
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size=SHARD if sharded else "1GB")
    return Judged(model, folder, config.vocab_size)
