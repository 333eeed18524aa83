"""GLM: only half of each head rotates, in interleaved pairs; gate and up are one matrix.

The judge is `transformers/models/glm`.
"""

from dataclasses import replace
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import DecoderConfig, LayerConfig
from gptoss_onnx.reference.config_parts import (
    expect_constants,
    plain_attention,
    pre_norm_decoder,
    read_heads,
    swiglu,
)
from gptoss_onnx.reference.layer_types import MOST_LAYERS
from gptoss_onnx.reference.rope_fields import read_rope

CLASS = "GlmForCausalLM"
PARTIAL = 0.5  # of a head's dimensions rotate, if config.json does not say how many


def read(fields: Fields, names: StoredNames) -> DecoderConfig:
    """Return the configuration."""
    expect_constants(fields, CLASS, hidden_act="silu")
    hidden, longest = fields.integer("hidden_size"), fields.integer("max_position_embeddings")
    heads, kv_heads, head_dim = read_heads(fields, hidden)
    rope = read_rope(fields, head_dim, longest, partial=PARTIAL, interleaved=True)
    attention = replace(
        plain_attention(heads, kv_heads, head_dim, rope),
        bias=fields.boolean("attention_bias", absent=names.has(".q_proj.bias")),
    )
    layer = LayerConfig(attention, swiglu(fields.integer("intermediate_size"), fused=True))
    count = fields.integer("num_hidden_layers", most=MOST_LAYERS)
    return pre_norm_decoder(fields, "glm", longest, (layer,) * count, eps=1.5625e-7)


_TINY: dict[str, Any] = {
    "model_type": "glm",
    "architectures": [CLASS],
    "hidden_act": "silu",
    "attention_bias": True,
    "rms_norm_eps": 1.5625e-07,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_size": 64,
    "intermediate_size": 160,
    "max_position_embeddings": 256,
    "vocab_size": 320,
    "tie_word_embeddings": False,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": PARTIAL,
    },
}
_9B = {
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "max_position_embeddings": 131072,
    "vocab_size": 151552,
}

GLM = Architecture(
    model_type="glm",
    class_name=CLASS,
    read=read,
    defaults={
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "max_position_embeddings": 131072,
        "vocab_size": 151552,
    },
    tiny=_TINY,
    presets={"glm-4-9b": _TINY | _9B},
)
