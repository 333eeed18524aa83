"""Qwen2 and Qwen2.5: Llama with biases of query, key and value, and a window on late layers.

The judge is `transformers/models/qwen2`. Published files state a window and turn it off
(use_sliding_window false).
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
from gptoss_onnx.reference.layer_types import read_late_windows

CLASS = "Qwen2ForCausalLM"


def read(fields: Fields, _: StoredNames) -> DecoderConfig:
    """Return the configuration."""
    expect_constants(fields, CLASS, hidden_act="silu")
    attention, longest = read_attention(fields)
    attention = replace(attention, bias=True)
    feed_forward = swiglu(fields.integer("intermediate_size"))
    layers = (
        LayerConfig(replace(attention, window=window), feed_forward)
        for window in read_late_windows(fields)
    )
    return pre_norm_decoder(fields, "qwen2", longest, tuple(layers))


_TINY: dict[str, Any] = {
    "model_type": "qwen2",
    "architectures": [CLASS],
    "hidden_act": "silu",
    "use_sliding_window": True,
    "sliding_window": 5,
    "max_window_layers": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "hidden_size": 96,
    "intermediate_size": 160,
    "max_position_embeddings": 256,
    "vocab_size": 320,
}

QWEN2 = Architecture(
    model_type="qwen2",
    class_name=CLASS,
    read=read,
    defaults={
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "sliding_window": 4096,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "vocab_size": 151936,
        "rms_norm_eps": 1e-06,
    },
    tiny=_TINY,
    genai="qwen2",
)
