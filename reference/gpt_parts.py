"""The configuration of GPT and GPT-2, which differ in where their norms stand."""

from dataclasses import replace

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.config import (
    Activation,
    DecoderConfig,
    FeedForwardConfig,
    LayerConfig,
    NormConfig,
)
from gptoss_onnx.reference.config_parts import check_multiple, plain_attention
from gptoss_onnx.reference.layer_types import MOST_LAYERS


def gpt_decoder(
    fields: Fields,
    model_type: str,
    activation: Activation,
    *,
    post_norm: bool = False,
    scaled: bool = True,
) -> DecoderConfig:
    """Return a decoder with learned positions, fused projections and weights as (in, out).

    Args:
        fields: of `config.json`.
        model_type: as `config.json` says it.
        activation: of the feed-forward part, which is four times as wide unless n_inner says
            otherwise.
        post_norm: norms behind the residual sums, and none at the end.
        scaled: scores are divided by the root of the head dim.
    """
    hidden, heads = fields.integer("n_embd"), fields.integer("n_head")
    head_dim = head_dim_of(fields, hidden, heads, "n_embd", "n_head")
    attention = replace(
        plain_attention(heads, heads, head_dim, None),
        projections="stacked",
        bias=True,
        output_bias=True,
        transposed=True,
        scale=head_dim**-0.5 if scaled and head_dim else 1.0,
    )
    width = fields.integer("n_inner", absent=4 * hidden)
    feed_forward = FeedForwardConfig(width, activation, bias=True, fused=False, transposed=True)
    count = fields.integer("n_layer", most=MOST_LAYERS)
    return DecoderConfig(
        model_type=model_type,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        longest=fields.integer("n_positions"),
        norm=NormConfig("layer", fields.number("layer_norm_epsilon", 1e-5)),
        placement="post" if post_norm else "pre",
        embedding_norm=False,
        final_norm=not post_norm,
        positions="learned",
        tied=fields.boolean("tie_word_embeddings", absent=True),
        layers=(LayerConfig(attention, feed_forward),) * count,
    )


def head_dim_of(fields: Fields, hidden: int, heads: int, hidden_key: str, heads_key: str) -> int:
    """Return hidden / heads; notes a remainder. 0 where one of them is wrong already."""
    if not hidden or not heads:
        return 0
    check_multiple(fields, hidden_key, hidden, heads_key, heads)
    return hidden // heads
