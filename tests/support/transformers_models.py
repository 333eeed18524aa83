"""Tiny models of transformers: the judges of all architectures, and checkpoints they write."""

import copy
import json
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
        call = _Cached(self.model)
        pieces = (tokens[:prompt], *([token] for token in tokens[prompt:]))
        return torch.cat([call(piece) for piece in pieces])

    @torch.inference_mode()
    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return the `count` tokens that follow, each of the largest logit."""
        call, piece, found = _Cached(self.model), list(tokens), []
        for _ in range(count):
            piece = [int(call(piece)[-1].argmax())]
            found += piece
        return found


class _Cached:
    """Calls a model with what comes next; one that has no cache sees all tokens again."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._cache = model, None
        self._seen: list[int] = []

    def __call__(self, piece: Sequence[int]) -> torch.Tensor:
        self._seen += piece
        if hasattr(self._model.config, "afn"):  # the first GPT of transformers keeps no cache
            return self._model(input_ids=torch.tensor([self._seen])).logits[0, -len(piece) :]
        output = self._model(
            input_ids=torch.tensor([list(piece)]), past_key_values=self._cache, use_cache=True
        )
        self._cache = output.past_key_values
        return output.logits[0]


def write_by_transformers(
    model_type: str, changes: Mapping[str, Any], folder: Path, *, sharded: bool, seed: int = 0
) -> Judged:
    """Return a random model of an architecture's tiny shape, with `changes` to its config.json.

    It is saved by transformers into `folder`, in one file or in `sharded` ones, as bfloat16, which
    its float32 weights are exactly.
    """
    document = copy.deepcopy({**ARCHITECTURES[model_type].tiny, **changes})
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
            values = noise * SPREAD / math.sqrt(parameter.shape[-1])
        else:
            mean = 0.0 if name.endswith(("bias", "sinks")) else 1.0
            values = mean + 0.3 * noise
        parameter.data = values.bfloat16().float()
    model.tie_weights()
    saved = copy.deepcopy(model).bfloat16()
    saved.save_pretrained(folder, max_shard_size=SHARD if sharded else "1GB")
    return Judged(model, folder, config.vocab_size)


def as_version_4(folder: Path) -> None:
    """Rewrite a config.json as transformers 4 left it on the hub, with the keys of that time."""
    path = folder / "config.json"
    document = json.loads(path.read_text())
    rope = document.pop("rope_parameters")
    document["rope_theta"] = rope.pop("rope_theta")
    document["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    if "num_local_experts" in document and document["model_type"] == "qwen3_moe":
        document["num_experts"] = document.pop("num_local_experts")
    for key in ("layer_types", "attention_bias", "mlp_bias"):
        document.pop(key, None)
    if document.get("head_dim") == document["hidden_size"] // document["num_attention_heads"]:
        del document["head_dim"]
    path.write_text(json.dumps(document))
