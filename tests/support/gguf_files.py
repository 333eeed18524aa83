"""Write GGUF files of gpt-oss with the `gguf` package, llama.cpp's own, and decode them with it.

A file is made from a checkpoint that transformers wrote, with the metadata and the names of
llama.cpp's conversion. The oracle is a checkpoint for transformers with the values that the package
decodes from the file's bytes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from support.transformers_models import write_by_transformers

Tensors = dict[str, tuple[NDArray[Any], Kind]]
NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.router": "ffn_gate_inp",
}
TRUNK = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


@dataclass(frozen=True)
class Recipe:
    """How a checkpoint becomes a GGUF file.

    Attributes:
        dense: type of attention and lm_head.
        embedding: type of the embedding.
        experts: type of the experts.
        spoil: changes the tensors before they are written.
        metadata: changes the writer's metadata before they are written.
        tokenizer: a tokenizer.json that the file is to hold.
        parts: how many files.
        architecture: the name that it says.
    """

    dense: Kind = Kind.Q8_0
    embedding: Kind = Kind.Q8_0
    experts: Kind = Kind.MXFP4
    spoil: Callable[[Tensors], object] = field(default=lambda tensors: None)
    metadata: Callable[[dict[str, Any]], object] = field(default=lambda entries: None)
    tokenizer: Path | None = None
    parts: int = 1
    architecture: str = "gpt-oss"


def write_source(folder: Path) -> Path:
    """Let transformers write the checkpoint that files are made from."""
    write_by_transformers("gpt_oss", {"num_hidden_layers": 2}, folder, sharded=False)
    return folder


def write_gguf(source: Path, file: Path, recipe: Recipe) -> Path:
    """Write the file, or its parts; returns the (first) file that there is."""
    tensors = quantized(source, recipe)
    recipe.spoil(tensors)
    each = -(-len(tensors) // recipe.parts) if recipe.parts > 1 else 0
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(file, recipe.architecture, split_max_tensors=each)
    _describe(writer, json.loads((source / "config.json").read_text()))
    if recipe.tokenizer is not None:
        add_tokenizer(writer, recipe.tokenizer)
    recipe.metadata(writer.kv_data[0])
    for name, (content, kind) in tensors.items():
        writer.add_tensor(name, content, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first = file.with_name(f"{file.stem}-00001-of-{recipe.parts:05d}.gguf")
    return first if recipe.parts > 1 else file


def quantized(source: Path, recipe: Recipe) -> Tensors:
    """Return the tensors of a file, in the bytes of their types, by llama.cpp's names."""
    tensors: Tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        values = tensor.float().numpy()
        if name in TRUNK:
            kind = {"model.embed_tokens.weight": recipe.embedding, "lm_head.weight": recipe.dense}
            tensors[TRUNK[name]] = _as(values, kind.get(name, Kind.F32))
            continue
        layer, _, inner = name.removeprefix("model.layers.").partition(".")
        block = f"blk.{layer}."
        if inner.startswith("mlp.experts."):
            for stem, part in _experts(inner.removeprefix("mlp.experts."), values).items():
                kind = Kind.F32 if stem.endswith("bias") else recipe.experts
                tensors[block + stem] = _as(part, kind)
            continue
        stem = next(NAMES[known] + inner.removeprefix(known) for known in NAMES if known in inner)
        is_matrix = inner.startswith("self_attn") and values.ndim == 2
        tensors[block + stem] = _as(values, recipe.dense if is_matrix else Kind.F32)
    return tensors


def as_ollama(tensors: Tensors) -> None:
    """Give the tensors the names and the form of ollama's converter: q, k and v one behind the
    other, and rows of gates and ups in turn.
    """
    for name in [name for name in tensors if name.startswith("blk.")]:
        block, end = ".".join(name.split(".")[:2]), name.rpartition(".")[2]
        if ".attn_q." in name:
            parts = [tensors.pop(f"{block}.attn_{part}.{end}") for part in "qkv"]
            joined = np.concatenate([content for content, _ in parts])
            tensors[f"{block}.attn_qkv.{end}"] = (joined, parts[0][1])
        elif ".ffn_gate_exps." in name:
            gate, up = (tensors.pop(f"{block}.ffn_{part}_exps.{end}") for part in ("gate", "up"))
            both = np.stack([gate[0], up[0]], axis=2)  # (E, I, 2) and, of matrices, their rows
            both = both.reshape(len(both), -1, *both.shape[3:])
            tensors[f"{block}.ffn_gate_up_exps.{end}"] = (both, gate[1])
        elif ".attn_output." in name:
            tensors[f"{block}.attn_out.{end}"] = tensors.pop(name)
        elif ".attn_sinks." in name:
            tensors[f"{block}.attn_sinks"] = tensors.pop(name)
        elif ".post_attention_norm." in name:
            tensors[f"{block}.ffn_norm.weight"] = tensors.pop(name)


def decoded(tensors: Mapping[str, tuple[NDArray[Any], Kind]]) -> dict[str, torch.Tensor]:
    """Return what the `gguf` package reads from these bytes, by Hugging Face's names, in float32;
    experts as transformers has them without quantization.
    """
    values = {
        name: torch.from_numpy(np.array(gguf.quants.dequantize(*entry), np.float32))
        for name, entry in tensors.items()
    }
    found = {theirs: values[ours] for theirs, ours in TRUNK.items()}
    for layer in range(1 + max(int(name.split(".")[1]) for name in values if "blk" in name)):
        block, path = f"blk.{layer}.", f"model.layers.{layer}."
        for theirs, ours in NAMES.items():
            for end in ("",) if ours.endswith("weight") else (".weight", ".bias"):
                found[path + theirs + end] = values[block + ours + end]
        experts = f"{path}mlp.experts."
        gate, up, down = (values[f"{block}ffn_{it}_exps.weight"] for it in ("gate", "up", "down"))
        found[f"{experts}gate_up_proj"] = torch.stack([gate, up], 2).flatten(1, 2).mT.contiguous()
        found[f"{experts}down_proj"] = down.mT.contiguous()
        gate, up, down = (values[f"{block}ffn_{it}_exps.bias"] for it in ("gate", "up", "down"))
        found[f"{experts}gate_up_proj_bias"] = torch.stack([gate, up], 2).flatten(1)
        found[f"{experts}down_proj_bias"] = down
    return found


def write_oracle(source: Path, folder: Path, recipe: Recipe) -> Path:
    """Write a checkpoint for transformers with the values of the file; returns `folder`."""
    folder.mkdir(parents=True)
    stored = decoded(quantized(source, recipe))
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text((source / "config.json").read_text())
    return folder


def _as(values: NDArray[Any], kind: Kind) -> tuple[NDArray[Any], Kind]:
    return gguf.quants.quantize(values, kind), kind


def _experts(name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return what a tensor of the experts is in GGUF: matrices (E, rows, columns) and biases."""
    if name.endswith("bias"):
        if name.startswith("down"):
            return {"ffn_down_exps.bias": values}
        return {"ffn_gate_exps.bias": values[:, ::2], "ffn_up_exps.bias": values[:, 1::2]}
    rows = values.swapaxes(1, 2)
    if name.startswith("down"):
        return {"ffn_down_exps.weight": rows}
    return {"ffn_gate_exps.weight": rows[:, ::2], "ffn_up_exps.weight": rows[:, 1::2]}


def _describe(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Write the metadata that llama.cpp's conversion writes."""
    rope = config["rope_parameters"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_MXFP4_MOE)


def add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    """Write a tokenizer as llama.cpp's conversion does."""
    document = json.loads(path.read_text())
    words = {
        number: (word, gguf.TokenType.NORMAL) for word, number in document["model"]["vocab"].items()
    }
    for token in document["added_tokens"]:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        words[token["id"]] = (token["content"], kind)
    unused = [(f"[PAD{number}]", gguf.TokenType.UNUSED) for number in range(max(words) + 4)]
    words = dict(enumerate(unused)) | words
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    writer.add_token_list([words[number][0] for number in sorted(words)])
    writer.add_token_types([words[number][1] for number in sorted(words)])
    writer.add_token_merges([" ".join(pair) for pair in document["model"]["merges"]])
    writer.add_eos_token_id(0)
    template = path.with_name("chat_template.jinja")
    if template.exists():
        writer.add_chat_template(template.read_text())
