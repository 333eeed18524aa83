"""gpt_oss_lab: the home-made "GPT-OSS" of tutorials, with config.json keys of its own.

Experts on some layers or all, RMS or layer norms, SwiGLU or GELU, tied weights, positions of any
kind, StreamingLLM's kept first tokens. Tensors have Llama's names, experts are (E, out, in). No
program outside defines it; the test holds it to a plain definition in PyTorch.
"""

from dataclasses import replace
from typing import Any, Literal

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.architecture import TRAINING_KEYS, Architecture, StoredNames
from gptoss_onnx.reference.config import (
    Activation,
    AttentionConfig,
    DecoderConfig,
    ExpertsConfig,
    FeedForwardConfig,
    LayerConfig,
    NormConfig,
)
from gptoss_onnx.reference.config_parts import (
    check_multiple,
    plain_attention,
    plain_experts,
)
from gptoss_onnx.reference.layer_types import MOST_LAYERS
from gptoss_onnx.reference.rope_fields import read_rope

Added = Literal["learned", "sinusoidal"]
CLASS = "GptOssLabForCausalLM"
POSITIONS = ("rope", "learned", "sinusoidal", "alibi", "none")
_ADDED: dict[str, Added] = {"learned": "learned", "sinusoidal": "sinusoidal"}
_UNREAD = {"architectures", "dtype", "torch_dtype", "transformers_version", *TRAINING_KEYS}


def read(fields: Fields, names: StoredNames) -> DecoderConfig:
    """Return the configuration; a key that is not read is a mistake, for nobody else defines it."""
    count = fields.integer("n_layer", most=MOST_LAYERS)
    hidden, longest = fields.integer("n_embd"), fields.integer("n_positions")
    positions = fields.one_of("positions", POSITIONS) if fields.has("positions") else "rope"
    attention = _read_attention(fields, hidden, longest, positions)
    swiglu, bias = fields.boolean("use_swiglu", absent=True), fields.boolean("bias", absent=False)
    width = fields.integer("n_inner", absent=4 * hidden)
    activation: Activation = "swiglu" if swiglu else "gelu"
    dense = FeedForwardConfig(width, activation, bias, fused=False, transposed=False)
    moe_layers = _read_moe_layers(fields, count)
    experts = _read_experts(fields, dense) if moe_layers or fields.has("n_experts") else None
    layers = tuple(
        LayerConfig(attention, experts if experts and layer in moe_layers else dense)
        for layer in range(count)
    )
    rms = fields.boolean("use_rms_norm", absent=True)
    config = DecoderConfig(
        model_type="gpt_oss_lab",
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        longest=longest,
        norm=NormConfig("rms" if rms else "layer", fields.number("norm_eps", 1e-5)),
        placement="pre",
        embedding_norm=False,
        final_norm=True,
        positions=_ADDED.get(positions),
        tied=fields.boolean("tied", absent=True),
        layers=layers,
    )
    for key in sorted(fields.document.keys() - fields.read.keys() - _UNREAD):
        fields.wrong(key, "no such key")
    return config


def _read_attention(fields: Fields, hidden: int, longest: int, positions: str) -> AttentionConfig:
    heads = fields.integer("n_head")
    kv_heads = fields.integer("n_kv_head", absent=heads)
    if not fields.has("head_dim"):
        check_multiple(fields, "n_embd", hidden, "n_head", heads)
    check_multiple(fields, "n_head", heads, "n_kv_head", kv_heads)
    head_dim = fields.integer("head_dim", absent=hidden // heads if heads else 0)
    bias = fields.boolean("bias", absent=False)
    window = fields.integer("sliding_window", absent=0)
    kept = fields.integer("sink_tokens", absent=0)
    if kept and kept >= window:
        fields.wrong("sink_tokens", f"fewer than sliding_window = {window}")
    return replace(
        plain_attention(heads, kv_heads, head_dim, None),
        bias=bias,
        output_bias=bias,
        sinks=fields.boolean("sinks", absent=False),
        window=window,
        sink_tokens=kept,
        sink_bias=float(fields.value("sink_bias") or 0.0),
        rope=read_rope(fields, head_dim, longest) if positions == "rope" else None,
        alibi=positions == "alibi",
    )


def _read_moe_layers(fields: Fields, count: int) -> frozenset[int]:
    """The layers that have experts; all of them where moe_layers is missing."""
    if not fields.has("moe_layers"):
        return frozenset(range(count)) if fields.has("n_experts") else frozenset()
    value = fields.value("moe_layers")
    if not isinstance(value, list) or not all(type(layer) is int for layer in value):
        fields.wrong("moe_layers", "a list of layers")
        return frozenset()
    if any(not 0 <= layer < count for layer in value):
        fields.wrong("moe_layers", f"layers up to {count - 1}")
    return frozenset(value)


def _read_experts(fields: Fields, dense: FeedForwardConfig) -> ExpertsConfig:
    experts, top_k = fields.integer("n_experts"), fields.integer("top_k")
    if experts and top_k > experts:
        fields.wrong("top_k", f"at most n_experts = {experts}")
    plain = plain_experts(experts, top_k, dense.width)
    return replace(plain, activation=dense.activation, router_bias=dense.bias, bias=dense.bias)


_TINY: dict[str, Any] = (
    {"model_type": "gpt_oss_lab", "architectures": [CLASS]}
    | {
        "n_layer": 4,
        "n_head": 4,
        "n_embd": 64,
        "n_inner": 96,
        "n_experts": 8,
        "top_k": 2,
        "moe_layers": [1, 3],
        "n_positions": 256,
        "vocab_size": 320,
    }
    | {"use_rms_norm": True, "use_swiglu": True, "bias": False, "tied": True}
)


def _shape(layers: int, heads: int, width: int, experts: int, **more: Any) -> dict[str, Any]:
    document = _TINY | {"n_layer": layers, "n_head": heads, "n_embd": width, "n_experts": experts}
    document |= {"n_positions": 131072, "vocab_size": 200000, "n_inner": 4 * width} | more
    del document["moe_layers"]
    return document


_WIDE = {"n_positions": 262144, "vocab_size": 201088, "head_dim": 128}

GPT_OSS_LAB = Architecture(
    model_type="gpt_oss_lab",
    class_name=CLASS,
    read=read,
    tiny=_TINY,
    presets={
        "gpt-oss-lab-20b": _shape(32, 32, 2048, 8),
        "gpt-oss-lab-120b": _shape(64, 64, 4096, 16),
        # Experts so wide that all come to 20.7 and 123.4 billion parameters.
        "gpt-oss-lab-wide-20b": _shape(32, 48, 6144, 8, n_kv_head=8, n_inner=3520, **_WIDE),
        "gpt-oss-lab-wide-120b": _shape(64, 80, 10240, 8, n_kv_head=10, n_inner=6752, **_WIDE),
    },
    refusals=("any key that is not read: nobody else says what it would mean",),
)
