"""Weights: bytes that are not the checkpoint's."""

from onnx import TensorProto

from mutants.mutant import REFUSED, table
from mutants.weight_edits import (
    add_to,
    evens_first,
    exchange_rows,
    flip,
    put,
    reads,
    roll,
    shifted,
    transpose,
    typed,
)

NAN, SIGN, LAST_BIT = b"\xc0\x7f", 0x80, 0x01  # of bfloat16, whose second byte has the sign
EXPERTS = "mlp.experts"

WEIGHTS = table(
    "weights",
    (
        "a sign in the embedding of the last token but two",
        flip("embed_tokens.weight", -3, 21, SIGN),
        "embed_tokens",
        "native: every token",
    ),
    (
        "the last bit of a number in the embedding of one token",
        flip("embed_tokens.weight", 1234, 40, LAST_BIT),
        "embed_tokens",
        "native: every token",
    ),
    (
        "no number in the embedding of one token",
        put("embed_tokens.weight", 777, 12, NAN),
        "embed_tokens",
        "native: every token",
    ),
    (
        "an exponent in lm_head",
        flip("lm_head.weight", 1500, 31, 0x01),
        "lm_head",
        "native: prefill 45",
    ),
    (
        "one number of four bits",
        flip(f"layers.3.{EXPERTS}.gate_up_proj_blocks", 2, 100, 0x07),
        "layers.3 gate_up_proj_blocks|MoEDispatchMXFP4",
        "native: prefill 45",
    ),
    (
        "a scale doubled",
        add_to(f"layers.1.{EXPERTS}.down_proj_scales", 5, 17, 1),
        "layers.1 down_proj_scales|MoEDispatchMXFP4",
        "native: prefill 45",
    ),
    (
        "the last bit of a sink",
        flip("layers.2.self_attn.sinks", 3, 0, LAST_BIT),
        "layers.2 sinks|SinkAttention",
        "native: prefill 45",
    ),
    (
        "two experts exchanged",
        exchange_rows(f"layers.2.{EXPERTS}.gate_up_proj_blocks", 1, 4),
        "layers.2 gate_up_proj_blocks|MoEDispatchMXFP4",
        "native: prefill 45",
    ),
    (
        "biases of two experts exchanged",
        exchange_rows(f"layers.0.{EXPERTS}.down_proj_bias", 0, 3),
        "layers.0 down_proj_bias|MoEDispatchMXFP4|mlp",
        "native: prefill 45",
    ),
    (
        "a router sends to the next expert",
        exchange_rows("layers.1.mlp.router.weight", 2, 3),
        "layers.1 router",
        "native: prefill 45",
    ),
    (
        "keys' rows one late",
        roll("layers.1.self_attn.k_proj.weight"),
        "layers.1 k_proj",
        "native: prefill 45",
    ),
    (
        "a matrix stored the other way round",
        transpose("layers.3.self_attn.o_proj.weight"),
        "layers.3 o_proj",
        "native: prefill 45",
    ),
    (
        "keys multiply the weights of values",
        reads("layers.2.self_attn.k_proj.weight", "layers.2.self_attn.v_proj.weight"),
        "layers.2 k_proj",
        "native: prefill 45",
    ),
    (
        "gates before ups in a bias",
        evens_first(f"layers.0.{EXPERTS}.gate_up_proj_bias"),
        "layers.0 gate_up_proj_bias|MoEDispatchMXFP4|mlp",
        "native: prefill 45",
    ),
    (
        "bytes of bfloat16 said to be float16",
        typed("layers.1.self_attn.q_proj.weight", TensorProto.FLOAT16),
        "layers.1 q_proj",
        "native: prefill 45",
    ),
    (
        "the last bit of a norm",
        flip("layers.1.input_layernorm.weight", 9, 0, LAST_BIT),
        "layers.1 input_layernorm",
        "native: prefill 45",
    ),
    (
        "a weight that begins a row late",
        shifted("layers.0.self_attn.v_proj.weight", 1),
        "layers.0 v_proj",
        REFUSED,
    ),
)
