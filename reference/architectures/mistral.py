"""Mistral: Llama with a window, which later versions gave up again (sliding_window null).

The judge is `transformers/models/mistral`; the published file is mistralai/Mistral-7B-v0.1.
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
    swiglu,
)
from gptoss_onnx.reference.layer_types import MOST_LAYERS, read_window

CLASS = "MistralForCausalLM"


def read(fields: Fields, _: StoredNames) -> DecoderConfig:
    """Return the configuration."""
    expect_constants(fields, CLASS, hidden_act="silu")
    if fields.has("layer_types"):
        fields.wrong("layer_types", "no such key: all layers of Mistral have the same window")
    attention, longest = read_attention(fields)
    layer = LayerConfig(
        replace(attention, window=read_window(fields)),
        swiglu(fields.integer("intermediate_size")),
    )
    count = fields.integer("num_hidden_layers", most=MOST_LAYERS)
    return pre_norm_decoder(fields, "mistral", longest, (layer,) * count)


_COMMON: dict[str, Any] = {
    "model_type": "mistral",
    "architectures": [CLASS],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}

MISTRAL = Architecture(
    model_type="mistral",
    class_name=CLASS,
    read=read,
    defaults={
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "vocab_size": 32000,
        "rms_norm_eps": 1e-06,
    },
    tiny=_COMMON
    | {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "hidden_size": 64,
        "intermediate_size": 160,
        "sliding_window": 5,
        "max_position_embeddings": 256,
        "vocab_size": 320,
    },
    presets={
        "mistral-7b": _COMMON
        | {
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "sliding_window": 4096,
            "max_position_embeddings": 32768,
            "vocab_size": 32000,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    },
    genai="mistral",
)
