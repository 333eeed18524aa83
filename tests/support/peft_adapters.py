"""Adapters that PEFT itself writes for tiny models, and what PEFT merges of them."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.hugging_face import load_hugging_face
from support.transformers_models import Judged, write_by_transformers

# What adapters hold are multiples of a power of two, few enough that products and sums of them and
# bfloat16 weights are exact in float32: then only the last rounding is left, in whatever order.
_STEP, _STEPS = 2.0**-7, 8
RANK, ALPHA = 4, 8


class Base:
    """A model that transformers wrote, and adapters for it."""

    def __init__(self, judged: Judged) -> None:
        self.judged, self.folder = judged, judged.folder

    @classmethod
    def write(cls, model_type: str, changes: Mapping[str, Any], folder: Path) -> "Base":
        """Let transformers write a tiny checkpoint in bfloat16."""
        return cls(write_by_transformers(model_type, changes, folder, sharded=False))

    @classmethod
    def mxfp4(cls, folder: Path) -> "Base":
        """Write a tiny gpt-oss in MXFP4."""
        make_checkpoint(folder, tiny_document("gpt_oss"))
        model = load_hugging_face(folder, mxfp4=True)
        return cls(Judged(model, folder, model.config.vocab_size))

    def adapter(self, folder: Path, *, seed: int = 0, **settings: Any) -> Path:
        """Let PEFT write an adapter with random values into `folder`; returns it."""
        config = LoraConfig(**{"r": RANK, "lora_alpha": ALPHA, **settings})
        model = get_peft_model(copy.deepcopy(self.judged.model), config)
        _randomize(model, seed)
        model.save_pretrained(folder)
        return folder

    def merged(self, adapters: Sequence[Path], folder: Path | None = None) -> Judged:
        """Return what PEFT merges, each weight that changed rounded to bfloat16, as a judge of the
        checkpoint in `folder`.
        """
        model: PreTrainedModel = copy.deepcopy(self.judged.model)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for adapter in adapters:
            loaded = PeftModel.from_pretrained(model, str(adapter))
            model = loaded.merge_and_unload()
        for name, value in model.state_dict().items():
            if name not in before or not torch.equal(before[name], value):
                value.copy_(value.bfloat16().float())
        return Judged(model.eval(), folder or self.folder, self.judged.vocab_size)

    def loaded(self, adapter: Path) -> Judged:
        """Return the model with an adapter that PEFT did not merge."""
        model = PeftModel.from_pretrained(copy.deepcopy(self.judged.model), str(adapter))
        return Judged(model.eval(), self.folder, self.judged.vocab_size)


def _randomize(model: torch.nn.Module, seed: int) -> None:
    """Give everything that is trained a value that is seldom zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "magnitude" in name:
            parameter.data *= 1 + torch.rand(parameter.shape, generator=generator)
            continue
        steps = torch.randint(-_STEPS, _STEPS + 1, parameter.shape, generator=generator)
        if "lora_" in name:
            parameter.data = steps * (_STEP * 4)
        else:  # a whole weight or bias
            parameter.data = (parameter.data + steps * _STEP).bfloat16().float()
