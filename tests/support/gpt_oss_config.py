"""The published config.json of gpt-oss-20b and variants of it."""

import copy
from typing import Any

from gptoss_onnx.reference import DecoderConfig
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.checkpoint import read_config

# The published config.json of gpt-oss-20b, cut to four layers.
PUBLISHED: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "transformers_version": "4.55.0.dev0",
    "use_cache": True,
    "vocab_size": 201088,
}
YARN = PUBLISHED["rope_scaling"]
MISSING = object()


def changed(**changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(PUBLISHED) | changes
    return {key: value for key, value in document.items() if value is not MISSING}


def with_yarn(**changes: Any) -> dict[str, Any]:
    return changed(
        rope_scaling={key: value for key, value in (YARN | changes).items() if value is not MISSING}
    )


def read(document: dict[str, Any]) -> DecoderConfig:
    return read_config(document, StoredNames([]), "config.json")[2]
