"""Parts of a configuration that several architectures read or build alike."""

import math
from dataclasses import replace

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.config import (
    AttentionConfig,
    DecoderConfig,
    ExpertsConfig,
    FeedForwardConfig,
    LayerConfig,
    NormConfig,
    RopeConfig,
)
from gptoss_onnx.reference.rope_fields import THETA, read_rope


def expect_constants(fields: Fields, class_name: str, **constants: object) -> None:
    """Note values that transformers can change and that this project computes in one way only.

    Args:
        fields: of `config.json`.
        class_name: the only entry that `architectures` may have, if it is there.
        constants: the value that each key must have, if it is there.
    """
    if fields.has("architectures") and fields.value("architectures") != [class_name]:
        fields.wrong("architectures", f"['{class_name}']")
    for key, value in constants.items():
        if key in fields.document and fields.value(key) != value:
            fields.wrong(key, repr(value))


def read_heads(fields: Fields, hidden_size: int | None = None) -> tuple[int, int, int]:
    """Return (heads, kv heads, head dim).

    If `hidden_size` is given, a missing head_dim is hidden_size / heads, and missing kv heads are
    as many as the heads. If it is not, both must be there.
    """
    heads = fields.integer("num_attention_heads")
    kv_heads = fields.integer("num_key_value_heads", absent=None if hidden_size is None else heads)
    derived = None if hidden_size is None or not heads else hidden_size // heads
    if hidden_size is not None and not fields.has("head_dim"):
        check_multiple(fields, "hidden_size", hidden_size, "num_attention_heads", heads)
    head_dim = fields.integer("head_dim", absent=derived)
    check_multiple(fields, "num_attention_heads", heads, "num_key_value_heads", kv_heads)
    if head_dim % 2:
        fields.wrong("head_dim", "an even number (RoPE rotates halves)")
    return heads, kv_heads, head_dim


def read_attention(fields: Fields, theta: float = THETA) -> tuple[AttentionConfig, int]:
    """Return attention as Llama's config.json states it, without bias, and the most tokens.

    `theta` is what a missing rope_theta means.
    """
    hidden, longest = fields.integer("hidden_size"), fields.integer("max_position_embeddings")
    heads, kv_heads, head_dim = read_heads(fields, hidden)
    rope = read_rope(fields, head_dim, longest, theta=theta)
    return plain_attention(heads, kv_heads, head_dim, rope), longest


def with_bias(attention: AttentionConfig, fields: Fields, names: StoredNames) -> AttentionConfig:
    """Return attention whose projections have the biases that config.json says.

    If it has no attention_bias, the stored tensors decide.
    """
    bias, output_bias = (
        fields.boolean("attention_bias", absent=names.has(f".self_attn.{projection}.bias"))
        for projection in ("q_proj", "o_proj")
    )
    return replace(attention, bias=bias, output_bias=output_bias)


def check_multiple(fields: Fields, key: str, size: int, of: str, unit: int) -> None:
    """Note a size that is no multiple of another; one that is wrong already reads as 0."""
    if unit and size % unit:
        fields.problems.add(f"{key}: found {size}, expected a multiple of {of} = {unit}")


def plain_attention(
    heads: int, kv_heads: int, head_dim: int, rope: RopeConfig | None
) -> AttentionConfig:
    """Return attention without bias, sinks or window; an architecture replaces what it has."""
    return AttentionConfig(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        projections="separate",
        bias=False,
        output_bias=False,
        transposed=False,
        sinks=False,
        qk_norm=False,
        window=0,
        sink_tokens=0,
        sink_bias=0.0,
        rope=rope,
        alibi=False,
        scale=head_dim**-0.5 if head_dim else 1.0,
    )


def swiglu(width: int, *, bias: bool = False, fused: bool = False) -> FeedForwardConfig:
    """Return a dense SwiGLU layer of `width`."""
    return FeedForwardConfig(width, "swiglu", bias, fused, transposed=False)


def plain_experts(count: int, top_k: int, width: int) -> ExpertsConfig:
    """Return experts of plain SwiGLU without biases, as (E, out, in), gate before up."""
    return ExpertsConfig(
        count=count,
        top_k=top_k,
        width=width,
        activation="swiglu",
        alpha=1.0,
        limit=math.inf,
        beta=0.0,
        normalize=True,
        router_bias=False,
        bias=False,
        storage="rows",
        interleaved=False,
    )


def swiglu_experts(fields: Fields, width_key: str, *, normalize: bool = True) -> ExpertsConfig:
    """Return experts of plain SwiGLU without biases.

    Files of transformers 4 count Qwen3-MoE's as num_experts, all others as num_local_experts.
    """
    count_key = "num_experts" if fields.has("num_experts") else "num_local_experts"
    count, top_k = fields.integer(count_key), fields.integer("num_experts_per_tok")
    experts = replace(plain_experts(count, top_k, fields.integer(width_key)), normalize=normalize)
    check_top_k(fields, experts, count_key)
    return experts


def check_top_k(fields: Fields, experts: ExpertsConfig, count_key: str) -> None:
    """Note more experts a token than there are."""
    if experts.count and experts.top_k > experts.count:
        fields.problems.add(
            f"num_experts_per_tok: found {experts.top_k}, expected at most "
            f"{count_key} = {experts.count}"
        )


def pre_norm_decoder(
    fields: Fields,
    model_type: str,
    longest: int,
    layers: tuple[LayerConfig, ...],
    eps: float | None = None,
) -> DecoderConfig:
    """Return a decoder of RMS norms before each part and one at the end, as Llama began it.

    A missing rms_norm_eps reads as `eps`, if that is given.
    """
    return DecoderConfig(
        model_type=model_type,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        longest=longest,
        norm=NormConfig("rms", fields.number("rms_norm_eps", eps)),
        placement="pre",
        embedding_norm=False,
        final_norm=True,
        positions=None,
        tied=fields.boolean("tie_word_embeddings", absent=False),
        layers=layers,
    )
