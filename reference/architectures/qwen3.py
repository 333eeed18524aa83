"""Qwen3: Llama whose queries and keys are normalised head by head; a window on late layers.

The judge is `transformers/models/qwen3`; the published file is Qwen/Qwen3-8B.
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
    with_bias,
)
from gptoss_onnx.reference.layer_types import read_late_windows

CLASS = "Qwen3ForCausalLM"


def read(fields: Fields, names: StoredNames) -> DecoderConfig:
    """Return the configuration; biases that config.json does not mention are those stored."""
    expect_constants(fields, CLASS, hidden_act="silu")
    attention, longest = read_attention(fields)
    attention = with_bias(replace(attention, qk_norm=True), fields, names)
    feed_forward = swiglu(fields.integer("intermediate_size"))
    layers = (
        LayerConfig(replace(attention, window=window), feed_forward)
        for window in read_late_windows(fields)
    )
    return pre_norm_decoder(fields, "qwen3", longest, tuple(layers))


_COMMON: dict[str, Any] = {
    "model_type": "qwen3",
    "architectures": [CLASS],
    "hidden_act": "silu",
    "attention_bias": False,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}

QWEN3 = Architecture(
    model_type="qwen3",
    class_name=CLASS,
    read=read,
    defaults={
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "sliding_window": 4096,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "vocab_size": 151936,
        "rms_norm_eps": 1e-06,
    },
    tiny=_COMMON
    | {
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_size": 64,
        "intermediate_size": 160,
        "max_position_embeddings": 256,
        "vocab_size": 320,
    },
    presets={
        "qwen3-8b": _COMMON
        | {
            "use_sliding_window": False,
            "sliding_window": None,
            "max_window_layers": 36,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "max_position_embeddings": 40960,
            "vocab_size": 151936,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
        }
    },
    genai="qwen3",
)
