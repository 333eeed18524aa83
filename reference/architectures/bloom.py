"""BLOOM: ALiBi in place of positions, a norm on the embedding, fused projections head by head.

The judge is `transformers/models/bloom`.
"""

from dataclasses import replace
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import (
    DecoderConfig,
    FeedForwardConfig,
    LayerConfig,
    NormConfig,
)
from gptoss_onnx.reference.config_parts import plain_attention
from gptoss_onnx.reference.gpt_parts import head_dim_of
from gptoss_onnx.reference.layer_types import MOST_LAYERS

CLASS = "BloomForCausalLM"
LONGEST = 2048  # tokens it was trained on, where config.json does not say seq_length


def read(fields: Fields, names: StoredNames) -> DecoderConfig:
    """Return the configuration; older files say n_embed and num_attention_heads."""
    if fields.has("architectures") and fields.value("architectures") != [CLASS]:
        fields.wrong("architectures", f"['{CLASS}']")
    if fields.boolean("apply_residual_connection_post_layernorm", absent=False):
        fields.wrong("apply_residual_connection_post_layernorm", "false")
    hidden_key = "hidden_size" if fields.has("hidden_size") else "n_embed"
    heads_key = "n_head" if fields.has("n_head") else "num_attention_heads"
    hidden, heads = fields.integer(hidden_key), fields.integer(heads_key)
    head_dim = head_dim_of(fields, hidden, heads, hidden_key, heads_key)
    attention = replace(
        plain_attention(heads, heads, head_dim, None),
        projections="by_head",
        bias=True,
        output_bias=True,
        alibi=True,
    )
    feed_forward = FeedForwardConfig(
        4 * hidden, "gelu_tanh", bias=True, fused=False, transposed=False
    )
    count_key = "n_layer" if fields.has("n_layer") else "num_hidden_layers"
    count = fields.integer(count_key, most=MOST_LAYERS)
    return DecoderConfig(
        model_type="bloom",
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        longest=fields.integer("seq_length", absent=LONGEST),
        norm=NormConfig("layer", fields.number("layer_norm_epsilon", 1e-5)),
        placement="pre",
        embedding_norm=True,
        final_norm=True,
        positions=None,
        tied=fields.boolean("tie_word_embeddings", absent=True),
        layers=(LayerConfig(attention, feed_forward),) * count,
    )


_TINY: dict[str, Any] = {
    "model_type": "bloom",
    "architectures": [CLASS],
    "layer_norm_epsilon": 1e-5,
    "n_layer": 3,
    "n_head": 6,
    "hidden_size": 96,
    "vocab_size": 320,
    "seq_length": 256,
}

BLOOM = Architecture(
    model_type="bloom",
    class_name=CLASS,
    read=read,
    defaults={"n_layer": 2, "n_head": 8, "hidden_size": 64, "vocab_size": 250880},
    tiny=_TINY,
    presets={
        "bloom-560m": _TINY
        | {"n_layer": 24, "n_head": 16, "hidden_size": 1024, "vocab_size": 250880}
        | {"seq_length": 2048}
    },
    modules={
        "model.embed_tokens": "transformer.word_embeddings",
        "model.embed_layernorm": "transformer.word_embeddings_layernorm",
        "model.layers": "transformer.h",
        "model.norm": "transformer.ln_f",
        "self_attn.qkv_proj": "self_attention.query_key_value",
        "self_attn.o_proj": "self_attention.dense",
        "mlp.up_proj": "mlp.dense_h_to_4h",
        "mlp.down_proj": "mlp.dense_4h_to_h",
    },
    prefix="transformer.",
    refusals=("`apply_residual_connection_post_layernorm`: no published checkpoint has it",),
)
