"""Packages of target ort: the same faults among ONNX Runtime's own ops."""

from mutants.edits import attribute, read, rounded, skip
from mutants.mutant import table
from mutants.table.conditions import columns, token, wrong
from mutants.table.manifests import field
from mutants.weight_edits import exchange_rows, flip

ATTENTION, EXPERTS = "self_attn.GroupQueryAttention", "mlp.QMoE"

ORT = table(
    "ort",
    (
        "alpha of QMoE rounded to bfloat16",
        attribute(f"layers.3.{EXPERTS}", "activation_alpha", 1.703125),
        "layers.3 QMoE",
        "auto: prefill 45",
    ),
    (
        "limit of QMoE halved",
        attribute(f"layers.2.{EXPERTS}", "swiglu_limit", lambda old: old / 2),
        "layers.2 QMoE",
        "auto: prefill 45",
    ),
    (
        "QMoE takes one expert fewer",
        attribute(f"layers.1.{EXPERTS}", "k", lambda old: old - 1),
        "layers.1 QMoE",
        "auto: prefill 45",
    ),
    (
        "GroupQueryAttention with a window one token narrow",
        attribute(f"layers.2.{ATTENTION}", "local_window_size", lambda old: old - 1),
        "layers.2 GroupQueryAttention",
        "auto: prefill 45",
    ),
    (
        "GroupQueryAttention with another scale",
        attribute(f"layers.1.{ATTENTION}", "scale", lambda old: old * 1.001),
        "layers.1 GroupQueryAttention",
        "auto: prefill 45",
    ),
    (
        "GroupQueryAttention with the sinks of another layer",
        read("layers.1.self_attn.Cast", 0, "layers.3.self_attn.sinks"),
        "layers.1 GroupQueryAttention|sinks|Cast",
        "auto: prefill 45",
    ),
    (
        "keys not rotated",
        skip("layers.3.self_attn.RotaryEmbedding_key"),
        "layers.3 RotaryEmbedding|GroupQueryAttention|k_proj",
        "auto: prefill 45",
    ),
    (
        "one number of a widened matrix",
        flip("layers.0.self_attn.q_proj.weight_float32", 5, 22, 0x40),
        "layers.0 q_proj",
        "auto: prefill 45",
    ),
    (
        "a logit of one token",
        flip("lm_head.weight_float32", 1777, 30, 0x40),
        "lm_head",
        "auto: prefill 45",
    ),
    (
        "two experts of QMoE exchanged",
        exchange_rows("layers.1.mlp.experts.gate_up_proj_blocks", 0, 2),
        "layers.1 gate_up_proj_blocks|QMoE",
        "auto: prefill 45",
    ),
    (
        "a bias of values left out",
        read("layers.2.self_attn.v_proj.Gemm", 2, ""),
        "layers.2 v_proj|Gemm",
        "auto: prefill 45",
    ),
    (
        "values rounded to bfloat16",
        rounded("layers.1.self_attn.v_proj.Gemm"),
        "layers.1 v_proj|Gemm|Cast",
        "auto: prefill 45",
    ),
    (
        "calls of 24 tokens in target ort",
        wrong(2, columns(24), "self_attn.o_proj.Gemm"),
        "layers.2 o_proj|Where|Gemm",
        "auto: prefill 24",
    ),
    (
        "the last token id in target ort",
        wrong(1, token(lambda size: size - 1), "self_attn.o_proj.Gemm"),
        "layers.1 o_proj|Where|Gemm",
        "auto: every token",
    ),
    (
        "twice the context in target ort",
        field(lambda old: 2 * old, "longest"),
        "longest",
        "auto: every token",
    ),
)
