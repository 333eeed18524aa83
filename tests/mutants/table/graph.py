"""Graphs: an edge that leads from the wrong place."""

import numpy as np
from onnx import TensorProto

from mutants.edits import after, dropout, exchange, read, rounded, skip, together
from mutants.mutant import Change, table

WEIGHTS_OF_A_LAYER = (
    ("input_layernorm.Cast", (0,)),
    ("self_attn.q_proj.Linear", (1,)),
    ("self_attn.q_proj.Cast", (0,)),
    ("self_attn.k_proj.Linear", (1,)),
    ("self_attn.k_proj.Cast", (0,)),
    ("self_attn.v_proj.Linear", (1,)),
    ("self_attn.v_proj.Cast", (0,)),
    ("self_attn.o_proj.Linear", (1,)),
    ("self_attn.o_proj.Cast", (0,)),
    ("self_attn.Cast", (0,)),
    ("post_attention_layernorm.Cast", (0,)),
    ("mlp.router.Linear", (1,)),
    ("mlp.router.Cast", (0,)),
    ("mlp.MoEDispatchMXFP4", (2, 3, 5, 6)),
    ("mlp.Cast", (0,)),
    ("mlp.Cast_2", (0,)),
)


def _exchange_layers(first: int, second: int, parts: tuple[str, ...] = ("",)) -> Change:
    """Exchange the weights of two layers, or of some of their parts."""
    return together(
        *(
            exchange((f"layers.{first}.{node}", place), (f"layers.{second}.{node}", place))
            for node, places in WEIGHTS_OF_A_LAYER
            if node.startswith(parts)
            for place in places
        )
    )


ATTENTION = "self_attn.SinkAttention"

GRAPH = table(
    "graph",
    (
        "keys and values exchanged",
        exchange((f"layers.1.{ATTENTION}", 1), (f"layers.1.{ATTENTION}", 2)),
        "layers.1 SinkAttention",
        "native: prefill 45",
    ),
    (
        "queries of what is not normed",
        read("layers.2.self_attn.q_proj.Linear", 0, "layers.1.Add_2"),
        "layers.2 q_proj|Linear",
        "native: prefill 45",
    ),
    (
        "a norm left out",
        skip("layers.0.post_attention_layernorm.RMSNormalization"),
        "layers.0 post_attention_layernorm|RMSNormalization|mlp|router",
        "native: prefill 45",
    ),
    (
        "a router of what is not normed",
        read("layers.3.mlp.router.Linear", 0, "layers.3.Add"),
        "layers.3 router|Linear",
        "native: prefill 45",
    ),
    (
        "the experts' residual from before attention",
        read("layers.1.Add_2", 0, "layers.0.Add_2"),
        "layers.1 Add",
        "native: prefill 45",
    ),
    (
        "attention's residual is normed",
        read("layers.2.Add", 0, "layers.2.input_layernorm.RMSNormalization"),
        "layers.2 Add",
        "native: prefill 45",
    ),
    ("two layers exchanged", _exchange_layers(1, 3), "layers.1", "native: prefill 45"),
    (
        "experts of two layers exchanged",
        _exchange_layers(0, 2, ("mlp.MoE", "mlp.Cast")),
        "layers.0 MoEDispatchMXFP4|experts|mlp",
        "native: prefill 45",
    ),
    (
        "norms of a layer exchanged",
        exchange(
            ("layers.2.input_layernorm.Cast", 0), ("layers.2.post_attention_layernorm.Cast", 0)
        ),
        "layers.2 layernorm",
        "native: prefill 45",
    ),
    (
        "sinks of another layer",
        read("layers.1.self_attn.Cast", 0, "layers.3.self_attn.sinks"),
        "layers.1 SinkAttention|sinks|Cast",
        "native: prefill 45",
    ),
    ("the last norm left out", skip("norm.RMSNormalization"), "norm|lm_head", "native: prefill 45"),
    (
        "a bias of queries left out",
        read("layers.3.self_attn.q_proj.Linear", 2, ""),
        "layers.3 q_proj|Linear",
        "native: prefill 45",
    ),
    (
        "a bias of outputs left out",
        read("layers.0.self_attn.o_proj.Linear", 2, ""),
        "layers.0 o_proj|Linear",
        "native: prefill 45",
    ),
    (
        "a bias of the router left out",
        read("layers.2.mlp.router.Linear", 2, ""),
        "layers.2 router|Linear",
        "native: prefill 45",
    ),
    (
        "lm_head multiplies the embedding",
        read("lm_head.Linear", 1, "embed_tokens.weight"),
        "lm_head",
        "native: prefill 45",
    ),
    (
        "cosines and sines exchanged",
        exchange((f"layers.2.{ATTENTION}", 8), (f"layers.2.{ATTENTION}", 9)),
        "layers.2 SinkAttention",
        "native: prefill 45",
    ),
    (
        "another result with each run",
        dropout("layers.1.self_attn.o_proj.Linear", 0.01),
        "layers.1 o_proj|Linear|Dropout",
        "native: again",
    ),
    (
        "the residual rounded to bfloat16",
        rounded("layers.2.Add_2"),
        "layers.2|layers.3 Add|Cast",
        "native: prefill 45",
    ),
    (
        "queries rounded to float16",
        rounded("layers.1.self_attn.q_proj.Linear", TensorProto.FLOAT16),
        "layers.1 q_proj|Linear|Cast",
        "native: prefill 45",
    ),
    (
        "experts a thousandth stronger",
        after("layers.3.mlp.MoEDispatchMXFP4", "Mul", (1.001, np.float32)),
        "layers.3 MoEDispatchMXFP4|Mul",
        "native: prefill 45",
    ),
)
