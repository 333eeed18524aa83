"""gpt-oss: sinks, window layers alternating with full ones, YaRN, experts with a clamped SwiGLU.

The judge is `transformers/models/gpt_oss`; the published files are openai/gpt-oss-20b and -120b.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.custom_ops.mxfp4 import BLOCK
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig, LayerConfig
from gptoss_onnx.reference.config_parts import (
    check_top_k,
    expect_constants,
    plain_attention,
    pre_norm_decoder,
    read_heads,
)
from gptoss_onnx.reference.layer_types import read_windows
from gptoss_onnx.reference.rope_fields import read_rope

CLASS = "GptOssForCausalLM"
_GATE_UP = ".mlp.experts.gate_up_proj"
# Constants that the published config.json leaves out; transformers has the same.
ALPHA = 1.702
LIMIT = 7.0


def read(fields: Fields, names: StoredNames) -> DecoderConfig:
    """Return the configuration.

    Experts are as the checkpoint stores them: packed, stacked, or as projections of their own. If
    it stores none, they are as quantization_config says.
    """
    expect_constants(fields, CLASS, hidden_act="silu")
    longest = fields.integer("max_position_embeddings")
    heads, kv_heads, head_dim = read_heads(fields)
    rope = read_rope(fields, head_dim, longest, kinds=("yarn", "default"), absent=yarn(4096))
    bias = fields.boolean("attention_bias", absent=names.has(".self_attn.q_proj.bias"))
    attention = replace(
        plain_attention(heads, kv_heads, head_dim, rope), bias=bias, output_bias=bias, sinks=True
    )
    count_key = "num_experts" if fields.has("num_experts") else "num_local_experts"
    apart = names.has(f"{_GATE_UP}s.0.weight")
    dense = apart or names.has(_GATE_UP)
    packed = names.has(f"{_GATE_UP}_blocks") or (_says_mxfp4(fields) and not dense)
    experts = ExpertsConfig(
        count=fields.integer(count_key),
        top_k=fields.integer("num_experts_per_tok"),
        width=fields.integer("intermediate_size"),
        activation="swiglu",
        alpha=fields.number("swiglu_alpha", ALPHA),
        limit=fields.number("swiglu_limit", LIMIT),
        beta=1.0,
        normalize=True,
        router_bias=True,
        bias=True,
        storage="mxfp4" if packed else "rows" if apart else "columns",
        interleaved=True,
    )
    check_top_k(fields, experts, count_key)
    if packed or _says_mxfp4(fields):
        _check_blocks(fields)
    windows = read_windows(fields, slides=lambda layer: layer % 2 == 0)
    layers = (LayerConfig(replace(attention, window=window), experts) for window in windows)
    return pre_norm_decoder(fields, "gpt_oss", longest, tuple(layers))


def _says_mxfp4(fields: Fields) -> bool:
    quantization = fields.value("quantization_config")
    return isinstance(quantization, Mapping) and quantization.get("quant_method") == "mxfp4"


def _check_blocks(fields: Fields) -> None:
    for key in ("hidden_size", "intermediate_size"):
        size = fields.value(key)
        if isinstance(size, int) and size % BLOCK:
            fields.wrong(key, f"a multiple of {BLOCK} (the block length of MXFP4)")


_QUANTIZATION = {
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
    "quant_method": "mxfp4",
}
COMMON: dict[str, Any] = {
    "model_type": "gpt_oss",
    "architectures": [CLASS],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "swiglu_limit": LIMIT,
    "attention_bias": True,
    "tie_word_embeddings": False,
    "rope_theta": 150000.0,
    "quantization_config": _QUANTIZATION,
}


def yarn(
    original: int, factor: float = 32.0, fast: float = 32.0, slow: float = 1.0
) -> dict[str, Any]:
    """Return the rope_scaling of a gpt-oss that has seen `original` tokens at once."""
    return {
        "rope_type": "yarn",
        "factor": factor,
        "beta_fast": fast,
        "beta_slow": slow,
        "original_max_position_embeddings": original,
        "truncate": False,
    }


def _sizes(layers: int, experts: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "num_local_experts": experts,
        "num_experts_per_tok": 4,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "vocab_size": 201088,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "sliding_window": 128,
        "max_position_embeddings": 131072,
    }


# Of the published files; token ids are those of the o200k_harmony tokenizer.
_PUBLISHED = COMMON | {
    "rope_scaling": yarn(4096),
    "eos_token_id": 200002,
    "pad_token_id": 199999,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.9,
    "use_cache": True,
}
GPT_OSS = Architecture(
    model_type="gpt_oss",
    class_name=CLASS,
    read=read,
    defaults=_sizes(36, 128) | {"rms_norm_eps": 1e-5, "rope_theta": 150000.0},
    tiny=COMMON
    | {
        "num_hidden_layers": 4,
        "num_local_experts": 6,
        "num_experts_per_tok": 3,
        "hidden_size": 64,
        "intermediate_size": 96,
        "vocab_size": 320,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 8,
        "max_position_embeddings": 2048,
        "rope_scaling": yarn(64),
    },
    presets={
        "gpt-oss-20b": _PUBLISHED | _sizes(24, 32),
        "gpt-oss-120b": _PUBLISHED | _sizes(36, 128),
    },
    aliases={"20b": "gpt-oss-20b", "120b": "gpt-oss-120b"},
    # Unsloth makes each expert two projections of its own, to train on 4-bit weights.
    experts={
        f"{name}_proj{bias}": (f"{name}_projs.{{}}.{'bias' if bias else 'weight'}",)
        for name in ("gate_up", "down")
        for bias in ("", "_bias")
    },
    stacked_too=True,
    genai="gptoss",
)
