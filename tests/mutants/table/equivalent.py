"""Changes that look wrong and are not: no output shows them, so no judge of outputs can find them.

A comparison with a fresh export may, and may be right to.
"""

import numpy as np
from onnx import FunctionProto, NodeProto

from mutants.copied import Copied
from mutants.edits import exchange, named, number, rename_outputs, together
from mutants.mutant import Equivalent
from mutants.table.bodies import in_body, passes
from mutants.table.caches import ATTENTION, VALUES
from mutants.table.manifests import field


def _counts_padding(body: FunctionProto, node: NodeProto, copied: Copied) -> None:
    node.input[1] = "new"


EQUIVALENT = (
    Equivalent(
        "padding counts as tokens in attention's body",
        in_body("SinkAttention", _counts_padding, "Add", reads="new_lengths"),
        "padding lies behind every token of its row, so that causality hides it; and the session "
        "leaves so many slots that it overwrites none that is still seen",
    ),
    Equivalent(
        "the sink is left out of the largest score",
        in_body("SinkAttention", passes(0), "Max", gives="peak"),
        "a softmax is the same whatever is subtracted from all scores, as long as none overflows",
    ),
    Equivalent(
        "two full layers keep each other's values, and find them there",
        together(
            exchange((f"layers.1.{ATTENTION}", VALUES), (f"layers.3.{ATTENTION}", VALUES)),
            rename_outputs("present.1.value", "present.3.value"),
        ),
        "each layer reads what it wrote",
    ),
    Equivalent(
        "the manifest says that a window layer is full",
        field(0, "cache", 0, "window"),
        "its ring is as large as a full layer's, and the graph still sees the window alone: it "
        "costs memory",
    ),
    Equivalent(
        "experts that were not chosen have a low score in target ort",
        number(named("experts.not_chosen"), lambda old: np.full_like(old, -50)),
        "QMoE takes the largest scores itself, and shares the token among these alone",
    ),
    Equivalent(
        "the manifest names another opset",
        field(23, "opset"),
        "nobody reads it but people: the graph says its own",
    ),
    Equivalent(
        "the manifest counts another number of projections",
        field(3, "ops", 0, "count"),
        "a session asks which ops there are, not how many",
    ),
)
