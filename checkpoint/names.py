"""The names of stored tensors without what wrapped the model when a trainer saved it.

torch.compile, FSDP, activation checkpointing, DataParallel, DeepSpeed and PEFT put modules around a
model or its parts, and `state_dict` has their names in front of the model's own.
"""

import re
from dataclasses import replace

from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.shards import Shards
from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.errors import CheckpointError

# Around any part of a model, and around the whole one.
_ANYWHERE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_IN_FRONT = (("module",), ("_forward_module",), ("base_model", "model"))
_LORA = {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"}
# What any of these leaves on a name; hardly any checkpoint has one, and a stranger's many names.
_MARKED = re.compile(r"_module\b|\b(?:_orig_mod|module|base_model|base_layer|lora_\w+)\b")


def plain_name(name: str) -> str:
    """Return a tensor's name without the names of wrappers."""
    if _MARKED.search(name) is None:
        return name
    parts = [part for part in name.split(".") if part not in _ANYWHERE]
    while wrapper := next((w for w in _IN_FRONT if tuple(parts[: len(w)]) == w), None):
        parts = parts[len(wrapper) :]
    return ".".join(parts)


def unwrap(shards: Shards, problems: Problems) -> None:
    """Give every tensor of `shards` its plain name, in place.

    Two that would have the same are noted in `problems`. Raises CheckpointError for a model that
    was saved with an adapter beside its weights, not merged into them.
    """
    plain: dict[str, TensorInfo] = {}
    for name, info in shards.tensors.items():
        if _MARKED.search(name) is None and name not in plain:
            plain[name] = info
            continue
        parts = set(name.split("."))
        if parts & _LORA or "base_layer" in parts:
            raise CheckpointError(
                f"{shards.folder.path}: found {name[:200]}: the adapter (LoRA) is not merged into "
                "the weights; merge it (PEFT: merge_and_unload) and save the model again"
            )
        short = plain_name(name)
        if short in plain:
            problems.add(f"{name}: found {short} as well, expected one of the two")
        plain.setdefault(short, replace(info, name=short))
    shards.tensors = plain
    shards.promised = {plain_name(name) for name in shards.promised}
