"""The architecture of one gpt-oss model, read from a checkpoint's `config.json`, checked once and
frozen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from gptoss_onnx.checkpoint.fields import Fields, Problems
from gptoss_onnx.reference.rope_fields import read_rope

MODEL_TYPE = "gpt_oss"
ARCHITECTURE = "GptOssForCausalLM"
SLIDING = "sliding_attention"
FULL = "full_attention"
MOST_LAYERS = 1024  # more than any model has; a checkpoint of a stranger must not ask for millions
MXFP4_BLOCK = 32  # values that share one scale, along the reduction axis
# Constants of the architecture that the published config.json leaves out; transformers has the
# same.
SWIGLU_ALPHA = 1.702
SWIGLU_LIMIT = 7.0


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding: plain (`default`) or YaRN-scaled (`yarn`).

    `original_max_position_embeddings` is in tokens, `beta_fast` and `beta_slow` in rotations over
    that many. `truncate` rounds the ramp's ends to whole dimensions (gpt-oss does not).
    `attention_factor` multiplies cos and sin; None means 0.1·ln(factor) + 1. For `default` only
    `theta` counts; the others are 1, 1, 1, the maximum length, False and None.
    """

    theta: float
    kind: Literal["yarn", "default"]
    factor: float
    beta_fast: float
    beta_slow: float
    original_max_position_embeddings: int
    truncate: bool
    attention_factor: float | None


@dataclass(frozen=True)
class ModelConfig:
    """Every number that fixes the architecture; nothing here has a default.

    `window` is in tokens, the query's own included; 0 where no layer slides. `layer_types` holds
    one of `sliding_attention` and `full_attention` per layer.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int
    top_k: int
    window: int
    layer_types: tuple[str, ...]
    rms_norm_eps: float
    swiglu_alpha: float
    swiglu_limit: float
    attention_bias: bool
    tie_word_embeddings: bool
    max_position_embeddings: int
    rope: RopeConfig

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str) -> Self:
        """Read Hugging Face's `config.json`, in the published spelling or in the one of
        transformers 5.

        `where` names the document in the message. Raises CheckpointError with every missing key,
        wrong type and unsupported value at once.
        """
        problems = Problems()
        fields = Fields(document, problems)
        fields.one_of("model_type", (MODEL_TYPE,), ": only gpt-oss checkpoints are read")
        _check_constants(fields)
        num_layers = fields.integer("num_hidden_layers", most=MOST_LAYERS)
        layer_types = _read_layer_types(fields, num_layers)
        max_position_embeddings = fields.integer("max_position_embeddings")
        config = cls(
            num_layers=num_layers,
            hidden_size=fields.integer("hidden_size"),
            intermediate_size=fields.integer("intermediate_size"),
            vocab_size=fields.integer("vocab_size"),
            num_heads=fields.integer("num_attention_heads"),
            num_kv_heads=fields.integer("num_key_value_heads"),
            head_dim=fields.integer("head_dim"),
            num_experts=fields.integer("num_local_experts"),
            top_k=fields.integer("num_experts_per_tok"),
            window=_read_window(fields, layer_types),
            layer_types=layer_types,
            rms_norm_eps=fields.number("rms_norm_eps"),
            swiglu_alpha=fields.number("swiglu_alpha", SWIGLU_ALPHA),
            swiglu_limit=fields.number("swiglu_limit", SWIGLU_LIMIT),
            attention_bias=fields.boolean("attention_bias"),
            tie_word_embeddings=fields.boolean("tie_word_embeddings", absent=False),
            max_position_embeddings=max_position_embeddings,
            rope=RopeConfig(**read_rope(fields, max_position_embeddings)),
        )
        _check_shapes(config, fields)
        problems.check(where)
        return config

    def to_json(self) -> dict[str, Any]:
        """Return the configuration in Hugging Face's spelling; `from_json` of it gives an equal
        object.
        """
        return {
            "architectures": [ARCHITECTURE],
            "model_type": MODEL_TYPE,
            "num_hidden_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "vocab_size": self.vocab_size,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "num_local_experts": self.num_experts,
            "num_experts_per_tok": self.top_k,
            "sliding_window": self.window or None,
            "layer_types": list(self.layer_types),
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "swiglu_alpha": self.swiglu_alpha,
            "swiglu_limit": self.swiglu_limit,
            "attention_bias": self.attention_bias,
            "tie_word_embeddings": self.tie_word_embeddings,
            "max_position_embeddings": self.max_position_embeddings,
            "rope_theta": self.rope.theta,
            "rope_scaling": self._rope_scaling(),
        }

    def _rope_scaling(self) -> dict[str, Any]:
        rope = self.rope
        if rope.kind == "default":
            return {"rope_type": "default"}
        return {
            "rope_type": rope.kind,
            "factor": rope.factor,
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "original_max_position_embeddings": rope.original_max_position_embeddings,
            "truncate": rope.truncate,
        } | ({} if rope.attention_factor is None else {"attention_factor": rope.attention_factor})

    def window_of(self, layer: int) -> int:
        """Window of one layer in tokens; 0 means that it attends to everything before it."""
        return self.window if self.layer_types[layer] == SLIDING else 0


def _check_constants(fields: Fields) -> None:
    """Values that transformers can change and that this project computes in one way only."""
    architectures = fields.document.get("architectures")
    if architectures is not None and architectures != [ARCHITECTURE]:
        fields.wrong("architectures", f"['{ARCHITECTURE}']")
    if fields.document.get("hidden_act", "silu") != "silu":
        fields.wrong("hidden_act", "'silu'")


def _read_layer_types(fields: Fields, num_layers: int) -> tuple[str, ...]:
    """One attention type per layer; without the key, alternating as in transformers, sliding
    first.
    """
    if not fields.has("layer_types"):
        return tuple(FULL if layer % 2 else SLIDING for layer in range(num_layers))
    value = fields.document["layer_types"]
    if not isinstance(value, list):
        fields.wrong("layer_types", "a list with one entry per layer")
        return ()
    for layer, kind in enumerate(value):
        if kind not in (SLIDING, FULL):
            fields.problems.add(
                f"layer_types[{layer}]: found {kind!r}, expected {SLIDING!r} or {FULL!r}"
            )
    if num_layers and len(value) != num_layers:
        fields.problems.add(
            f"layer_types: found {len(value)} entries, expected num_hidden_layers = {num_layers}"
        )
    return tuple(value)


def _read_window(fields: Fields, layer_types: tuple[str, ...]) -> int:
    if (
        "sliding_window" in fields.document
        and not fields.has("sliding_window")
        and SLIDING not in layer_types
    ):
        return 0
    return fields.integer(
        "sliding_window", "an integer of at least 1 (null only where every layer is full)"
    )


def _check_shapes(config: ModelConfig, fields: Fields) -> None:
    """Relations between the sizes; a size that is itself wrong reads as 0 and is not reported
    twice.
    """
    problems = fields.problems
    if config.num_kv_heads and config.num_heads % config.num_kv_heads:
        problems.add(
            f"num_attention_heads: found {config.num_heads}, expected a multiple of "
            f"num_key_value_heads = {config.num_kv_heads}"
        )
    if config.head_dim % 2:
        fields.wrong("head_dim", "an even number (RoPE rotates halves)")
    if config.num_experts and config.top_k > config.num_experts:
        problems.add(
            f"num_experts_per_tok: found {config.top_k}, expected at most num_local_experts = "
            f"{config.num_experts}"
        )
    quantization = fields.document.get("quantization_config")
    if isinstance(quantization, Mapping) and quantization.get("quant_method") == "mxfp4":
        for key in ("hidden_size", "intermediate_size"):
            size = fields.document.get(key)
            if isinstance(size, int) and size % MXFP4_BLOCK:
                fields.wrong(key, f"a multiple of {MXFP4_BLOCK} (the block length of MXFP4)")
