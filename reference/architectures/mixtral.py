"""Mixtral: Mistral with experts, of which each token takes two.

The judge is `transformers/models/mixtral`; the published file is mistralai/Mixtral-8x7B-v0.1. Files
hold the experts one by one, as `block_sparse_moe.experts.0.w1` (gate), `w3` (up) and `w2` (down).
"""

from dataclasses import replace
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import DecoderConfig, LayerConfig
from gptoss_onnx.reference.config_parts import (
    expect_constants,
    pre_norm_decoder,
    read_attention,
    swiglu_experts,
)
from gptoss_onnx.reference.layer_types import MOST_LAYERS, read_window

CLASS = "MixtralForCausalLM"
THETA = 1e6  # what transformers takes where a file says nothing


def read(fields: Fields, _: StoredNames) -> DecoderConfig:
    """Return the configuration; the shares of a token's experts always add up to one."""
    expect_constants(fields, CLASS, hidden_act="silu")
    attention, longest = read_attention(fields, THETA)
    window = read_window(fields) if fields.has("sliding_window") else 0
    layer = LayerConfig(
        replace(attention, window=window), swiglu_experts(fields, "intermediate_size")
    )
    count = fields.integer("num_hidden_layers", most=MOST_LAYERS)
    return pre_norm_decoder(fields, "mixtral", longest, (layer,) * count)


_COMMON: dict[str, Any] = {
    "model_type": "mixtral",
    "architectures": [CLASS],
    "hidden_act": "silu",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": None,
    "rms_norm_eps": 1e-5,
    "rope_theta": THETA,
    "tie_word_embeddings": False,
}

MIXTRAL = Architecture(
    model_type="mixtral",
    class_name=CLASS,
    read=read,
    defaults={
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "vocab_size": 32000,
        "rms_norm_eps": 1e-05,
    },
    tiny=_COMMON
    | {
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": 256,
        "vocab_size": 320,
    },
    presets={
        "mixtral-8x7b": _COMMON
        | {
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "vocab_size": 32000,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    },
    modules={"mlp.router": "block_sparse_moe.gate", "mlp.experts": "block_sparse_moe.experts"},
    renamed={"block_sparse_moe": "mlp"},
    experts={"gate_up_proj": ("{}.w1.weight", "{}.w3.weight"), "down_proj": ("{}.w2.weight",)},
)
