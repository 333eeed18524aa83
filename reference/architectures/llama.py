"""Llama: RMS norms before each part, rotary positions, SwiGLU: the shape that most models share.

The judge is `transformers/models/llama`; the published files are those of meta-llama's
Meta-Llama-3-8B and -70B.
"""

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
from gptoss_onnx.reference.layer_types import MOST_LAYERS

CLASS = "LlamaForCausalLM"


def read(fields: Fields, names: StoredNames) -> DecoderConfig:
    """Return the configuration; biases that config.json does not mention are those stored."""
    expect_constants(fields, CLASS, hidden_act="silu")
    attention, longest = read_attention(fields)
    bias = fields.boolean("mlp_bias", absent=names.has(".mlp.gate_proj.bias"))
    layer = LayerConfig(
        with_bias(attention, fields, names),
        swiglu(fields.integer("intermediate_size"), bias=bias),
    )
    count = fields.integer("num_hidden_layers", most=MOST_LAYERS)
    return pre_norm_decoder(fields, "llama", longest, (layer,) * count)


_COMMON: dict[str, Any] = {
    "model_type": "llama",
    "architectures": [CLASS],
    "hidden_act": "silu",
    "attention_bias": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}


def _llama_3(layers: int, heads: int, hidden: int, width: int) -> dict[str, Any]:
    return _COMMON | {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "hidden_size": hidden,
        "intermediate_size": width,
        "max_position_embeddings": 8192,
        "vocab_size": 128256,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
    }


LLAMA = Architecture(
    model_type="llama",
    class_name=CLASS,
    read=read,
    defaults={
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "max_position_embeddings": 2048,
        "vocab_size": 32000,
        "rms_norm_eps": 1e-06,
    },
    tiny=_COMMON
    | {
        "attention_bias": True,
        "mlp_bias": True,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "hidden_size": 64,
        "intermediate_size": 160,
        "max_position_embeddings": 256,
        "vocab_size": 320,
    },
    presets={
        "llama-3-8b": _llama_3(32, 32, 4096, 14336),
        "llama-3-70b": _llama_3(80, 64, 8192, 28672),
    },
    genai="llama",
)
