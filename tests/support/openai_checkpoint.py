"""Write a checkpoint in OpenAI's own layout from one in Hugging Face's, without a line of the code
that reads it: by the names in `gpt_oss/torch/model.py` of github.com/openai/gpt-oss.
"""

import json
import re
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
QKV = "block.0.attn.qkv.weight"


def write_original(folder: Path, hugging_face: Path, files: int = 1) -> Path:
    """Write the same weights and the same configuration into a new `folder`, which is returned.

    Args:
        folder: the new folder.
        hugging_face: a checkpoint of one file, MXFP4.
        files: how many the tensors are spread over.
    """
    folder.mkdir(parents=True)
    tensors = _renamed(load_file(hugging_face / "model.safetensors"))
    names = list(tensors)
    for number in range(files):
        own = {name: tensors[name] for name in names[number::files]}
        name = "model" if files == 1 else f"model--{number + 1:05d}-of-{files:05d}"
        save_file(own, folder / f"{name}.safetensors")
    document = json.loads((hugging_face / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(_config(document)))
    types = {name: "BF16" for name in names if not name.endswith(("blocks", "scales"))}
    (folder / "dtypes.json").write_text(json.dumps(types))
    return folder


def _config(document: dict[str, Any]) -> dict[str, Any]:
    rope = document["rope_scaling"]
    return {
        "num_hidden_layers": document["num_hidden_layers"],
        "num_experts": document["num_local_experts"],
        "experts_per_token": document["num_experts_per_tok"],
        "vocab_size": document["vocab_size"],
        "hidden_size": document["hidden_size"],
        "intermediate_size": document["intermediate_size"],
        "head_dim": document["head_dim"],
        "num_attention_heads": document["num_attention_heads"],
        "num_key_value_heads": document["num_key_value_heads"],
        "sliding_window": document["sliding_window"],
        "initial_context_length": rope["original_max_position_embeddings"],
        "rope_theta": int(document["rope_theta"]),  # published as an integer
        "rope_scaling_factor": rope["factor"],
        "rope_ntk_alpha": int(rope["beta_slow"]),
        "rope_ntk_beta": int(rope["beta_fast"]),
    }


def _renamed(theirs: Tensors) -> Tensors:
    tensors = {
        "embedding.weight": theirs["model.embed_tokens.weight"],
        "norm.scale": theirs["model.norm.weight"],
        "unembedding.weight": theirs["lm_head.weight"],
    }
    layers = {int(found[1]) for name in theirs if (found := re.match(r"model.layers.(\d+)", name))}
    for layer in sorted(layers):
        old, new = f"model.layers.{layer}.", f"block.{layer}."
        for kind in ("weight", "bias"):
            rows = [theirs[f"{old}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            tensors[f"{new}attn.qkv.{kind}"] = torch.cat(rows)
            tensors[f"{new}attn.out.{kind}"] = theirs[f"{old}self_attn.o_proj.{kind}"]
            tensors[f"{new}mlp.gate.{kind}"] = theirs[f"{old}mlp.router.{kind}"]
        tensors[f"{new}attn.sinks"] = theirs[f"{old}self_attn.sinks"]
        tensors[f"{new}attn.norm.scale"] = theirs[f"{old}input_layernorm.weight"]
        tensors[f"{new}mlp.norm.scale"] = theirs[f"{old}post_attention_layernorm.weight"]
        for matrix, name in (("mlp1", "gate_up_proj"), ("mlp2", "down_proj")):
            experts = f"{old}mlp.experts.{name}"
            tensors[f"{new}mlp.{matrix}_weight.blocks"] = theirs[f"{experts}_blocks"]
            tensors[f"{new}mlp.{matrix}_weight.scales"] = theirs[f"{experts}_scales"]
            tensors[f"{new}mlp.{matrix}_bias"] = theirs[f"{experts}_bias"]
    return tensors


def shift_tensors(path: Path, blanks: int) -> None:
    """Lengthen the header of a safetensors file, so that its tensors begin elsewhere."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length] + b" " * blanks
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
