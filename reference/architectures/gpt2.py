"""GPT-2: learned positions, layer norms before each part, fused query, key and value.

The judge is `transformers/models/gpt2`. Its weights lie as (in, out), for a layer named Conv1D, and
files on the hub leave out the prefix `transformer.` and hold the causal masks.
"""

from typing import Any

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.config import Activation, DecoderConfig
from gptoss_onnx.reference.gpt_parts import gpt_decoder

CLASS = "GPT2LMHeadModel"
_ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
}


def read(fields: Fields, names: StoredNames) -> DecoderConfig:
    """Return the configuration; every size but the vocabulary's has GPT's own key."""
    if fields.has("architectures") and fields.value("architectures") != [CLASS]:
        fields.wrong("architectures", f"['{CLASS}']")
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if fields.boolean(key, absent=False):
            fields.wrong(key, "false")
    key = "activation_function"
    name = fields.one_of(key, tuple(_ACTIVATIONS)) if fields.has(key) else "gelu_new"
    scaled = fields.boolean("scale_attn_weights", absent=True)
    return gpt_decoder(fields, "gpt2", _ACTIVATIONS.get(name, "gelu"), scaled=scaled)


_TINY = {
    "model_type": "gpt2",
    "architectures": [CLASS],
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "n_layer": 3,
    "n_head": 4,
    "n_embd": 64,
    "n_inner": 160,
    "n_positions": 128,
    "vocab_size": 320,
}


def _published(layers: int, heads: int, width: int) -> dict[str, Any]:
    sizes = {"n_layer": layers, "n_head": heads, "n_embd": width, "n_inner": None}
    tokens = {"bos_token_id": 50256, "eos_token_id": 50256}
    return _TINY | sizes | tokens | {"n_positions": 1024, "vocab_size": 50257}


GPT2 = Architecture(
    model_type="gpt2",
    class_name=CLASS,
    read=read,
    defaults={"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257},
    tiny=_TINY,
    presets={
        "gpt2": _published(12, 12, 768),
        "gpt2-medium": _published(24, 16, 1024),
        "gpt2-large": _published(36, 20, 1280),
        "gpt2-xl": _published(48, 25, 1600),
    },
    modules={
        "model.embed_tokens": "transformer.wte",
        "model.embed_positions": "transformer.wpe",
        "model.layers": "transformer.h",
        "model.norm": "transformer.ln_f",
        "input_layernorm": "ln_1",
        "self_attn.qkv_proj": "attn.c_attn",
        "self_attn.o_proj": "attn.c_proj",
        "post_attention_layernorm": "ln_2",
        "mlp.up_proj": "mlp.c_fc",
        "mlp.down_proj": "mlp.c_proj",
    },
    prefix="transformer.",
    ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
    refusals=(
        "`scale_attn_by_inverse_layer_idx`: no published checkpoint has it",
        "`add_cross_attention`: this is a decoder alone",
    ),
)
