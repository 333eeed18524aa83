"""Attributes: numbers of a node that are almost right."""

from mutants.edits import attribute
from mutants.mutant import table

WINDOW, FULL = "layers.2.self_attn.SinkAttention", "layers.1.self_attn.SinkAttention"
EXPERTS = "layers.3.mlp.MoEDispatchMXFP4"

ATTRIBUTES = table(
    "attributes",
    (
        "alpha rounded to bfloat16",
        attribute(EXPERTS, "alpha", 1.703125),
        "layers.3 MoEDispatchMXFP4",
        "native: prefill 45",
    ),
    (
        "limit halved",
        attribute(EXPERTS, "limit", lambda old: old / 2),
        "layers.3 MoEDispatchMXFP4",
        "native: prefill 45",
    ),
    (
        "one expert fewer",
        attribute("layers.1.mlp.MoEDispatchMXFP4", "top_k", lambda old: old - 1),
        "layers.1 MoEDispatchMXFP4",
        "native: prefill 45",
    ),
    (
        "scale up by a thousandth",
        attribute(FULL, "scale", lambda old: old * 1.001),
        "layers.1 SinkAttention",
        "native: prefill 45",
    ),
    (
        "window one token narrow",
        attribute(WINDOW, "window", lambda old: old - 1),
        "layers.2 SinkAttention",
        "native: prefill 45",
    ),
    (
        "window one token wide",
        attribute(WINDOW, "window", lambda old: old + 1),
        "layers.2 SinkAttention",
        "native: prefill 45",
    ),
    (
        "no window",
        attribute(WINDOW, "window", 0),
        "layers.2 SinkAttention",
        "native: prefill 45",
    ),
    (
        "a full layer has a window of 128",
        attribute(FULL, "window", 128),
        "layers.1 SinkAttention",
        "native: prefill 200",
    ),
    (
        "epsilon of a norm ten times as large",
        attribute("layers.0.input_layernorm.RMSNormalization", "epsilon", 1e-4),
        "layers.0 input_layernorm|RMSNormalization",
        "native: prefill 45",
    ),
    (
        "epsilon of the last norm",
        attribute("norm.RMSNormalization", "epsilon", 1e-3),
        "norm RMSNormalization|model.norm",
        "native: prefill 45",
    ),
    (
        "kernels alone are told of a softmax over all experts",
        attribute(EXPERTS, "normalize", 0),
        "layers.3 MoEDispatchMXFP4",
        "native: prefill 45",
    ),
    (
        "kernels alone are told that angles interleave",
        attribute(FULL, "interleaved", 1),
        "layers.1 SinkAttention",
        "native: prefill 45",
    ),
    (
        "kernels alone are told of another beta",
        attribute(EXPERTS, "beta", 0.0),
        "layers.3 MoEDispatchMXFP4",
        "native: prefill 45",
    ),
)
