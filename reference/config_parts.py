"""Parts of a configuration that several architectures read or build alike."""

import math

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.config import (
    AttentionConfig,
    DecoderConfig,
    ExpertsConfig,
    FeedForwardConfig,
    LayerConfig,
    NormConfig,
    RopeConfig,
)


def expect_constants(fields: Fields, class_name: str, **constants: object) -> None:
    """Note values that transformers can change and that this project computes in one way only.

    Args:
        fields: of `config.json`.
        class_name: the only entry that `architectures` may have, if it is there.
        constants: key and value, which a missing key has too.
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
    if derived and not fields.has("head_dim") and hidden_size and hidden_size % heads:
        fields.problems.add(
            f"hidden_size: found {hidden_size}, expected a multiple of "
            f"num_attention_heads = {heads}"
        )
    head_dim = fields.integer("head_dim", absent=derived)
    if kv_heads and heads % kv_heads:
        fields.problems.add(
            f"num_attention_heads: found {heads}, expected a multiple of "
            f"num_key_value_heads = {kv_heads}"
        )
    if head_dim % 2:
        fields.wrong("head_dim", "an even number (RoPE rotates halves)")
    return heads, kv_heads, head_dim


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


def swiglu_experts(
    fields: Fields, count_key: str, width_key: str, *, normalize: bool
) -> ExpertsConfig:
    """Return experts of plain SwiGLU without biases, which are stored one by one."""
    experts = ExpertsConfig(
        count=fields.integer(count_key),
        top_k=fields.integer("num_experts_per_tok"),
        width=fields.integer(width_key),
        activation="swiglu",
        alpha=1.0,
        limit=math.inf,
        beta=0.0,
        normalize=normalize,
        router_bias=False,
        bias=False,
        storage="rows",
        interleaved=False,
    )
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

    `eps` stands in for a missing rms_norm_eps, where it is given.
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
