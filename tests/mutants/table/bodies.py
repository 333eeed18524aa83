"""Function bodies: what runs wherever the native library does not. Native kernels never see them.

Values in a body have the names of the variables in `custom_ops/attention_bodies.py` and
`moe_bodies.py`.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from mutants.copied import Copied
from mutants.mutant import Change, table

EditNode = Callable[[FunctionProto, NodeProto, Copied], None]
MASKED, WHOLE = -1e30, 9223372036854775807


def in_body(function: str, edit: EditNode, op: str, reads: str = "", gives: str = "") -> Change:
    """Change the first node of an op that reads a value, gives one, or both."""

    def change(copied: Copied) -> None:
        body = copied.function(function)
        node = next(
            node
            for node in body.node
            if node.op_type == op
            and (not reads or reads in node.input)
            and (not gives or gives in node.output)
        )
        edit(body, node, copied)

    return change


def becomes(op: str) -> EditNode:
    """Make it a node of another op."""

    def edit(body: FunctionProto, node: NodeProto, copied: Copied) -> None:
        node.op_type = op

    return edit


def passes(place: int) -> EditNode:
    """Let it give one of its inputs as it is."""

    def edit(body: FunctionProto, node: NodeProto, copied: Copied) -> None:
        kept = node.input[place]
        node.op_type, node.input[:] = "Identity", [kept]
        del node.attribute[:]

    return edit


def states(name: str, value: Any) -> EditNode:
    """Set an attribute."""

    def edit(body: FunctionProto, node: NodeProto, copied: Copied) -> None:
        kept = [entry for entry in node.attribute if entry.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def through(place: int, *steps: tuple[str, dict[str, Any], tuple[Any, ...]]) -> EditNode:
    """Send one of its inputs through other nodes first: op, attributes, further inputs, which are
    names, or numbers as int64 (1) or of the model.
    """

    def edit(body: FunctionProto, node: NodeProto, copied: Copied) -> None:
        at = list(body.node).index(node)
        value = node.input[place]
        made: list[NodeProto] = []
        for index, (op, attributes, others) in enumerate(steps):
            names = [value]
            for other in others:
                if isinstance(other, str):
                    names.append(other)
                    continue
                number = other(copied) if callable(other) else other
                made.append(_constant(np.asarray(number, np.int64), f"mutant_number_{index}"))
                names.append(made[-1].output[0])
            value = f"mutant_{index}"
            made.append(helper.make_node(op, names, [value], **attributes))
        node.input[place] = value
        for new in reversed(made):
            body.node.insert(at, new)

    return edit


def _constant(value: NDArray[Any], name: str) -> NodeProto:
    tensor = numpy_helper.from_array(value, name)
    return helper.make_node("Constant", [], [name], value=tensor)


def constant(function: str, old: float, new: float) -> Change:
    """Change a number of a body."""

    def change(copied: Copied) -> None:
        for node in copied.function(function).node:
            for entry in node.attribute:
                if entry.ref_attr_name:
                    continue
                value = helper.get_attribute_value(entry)
                if isinstance(value, type(old)) and np.isclose(value, old, rtol=1e-6):
                    entry.CopyFrom(helper.make_attribute(entry.name, new))
                    return
        raise AssertionError(f"{function} has no {old}")

    return change


def looked_up(size: int, edit: Callable[[NDArray[Any], Copied], None]) -> Change:
    """Change the table of so many entries by which MXFP4 is decoded."""

    def change(copied: Copied) -> None:
        for node in copied.function("DecodeMXFP4").node:
            for entry in node.attribute:
                if node.op_type == "Constant" and np.prod(entry.t.dims) == size:
                    values = numpy_helper.to_array(entry.t).copy()
                    edit(values, copied)
                    entry.t.CopyFrom(numpy_helper.from_array(values, entry.t.name))

    return change


def _one_byte(levels: NDArray[Any], copied: Copied) -> None:
    levels[0x3A, 1] *= 2


def _rarest_scale(factors: NDArray[Any], copied: Copied) -> None:
    scales = Counter(copied.bytes_of("layers.3.mlp.experts.down_proj_scales"))
    factors[scales.most_common()[-1][0]] *= 2


def _experts_but_one(copied: Copied) -> list[int]:
    return [copied.manifest["model"]["num_local_experts"] - 1]


TO_BFLOAT16 = ("Cast", {"to": TensorProto.BFLOAT16}, ())
TO_FLOAT = ("Cast", {"to": TensorProto.FLOAT}, ())
ATTENTION, EXPERTS = "SinkAttention", "MoEDispatchMXFP4"

BODIES = table(
    "bodies",
    (
        "a window of one token more",
        in_body(ATTENTION, becomes("LessOrEqual"), "Less", reads="distance"),
        "SinkAttention",
        "portable: prefill 45",
    ),
    (
        "a token does not see itself",
        in_body(ATTENTION, becomes("Greater"), "GreaterOrEqual", reads="distance"),
        "SinkAttention",
        "portable: prefill 45",
    ),
    ("a mask of -10", constant(ATTENTION, MASKED, -10.0), "SinkAttention", "portable: prefill 45"),
    (
        "full layers see 256 tokens",
        constant(ATTENTION, WHOLE, 256),
        "SinkAttention",
        "portable: every token",
    ),
    (
        "no weight for the sink",
        in_body(ATTENTION, passes(0), "Add", gives="total"),
        "SinkAttention",
        "portable: prefill 45",
    ),
    (
        "keys not rotated in the body",
        in_body(ATTENTION, passes(0), "RotaryEmbedding", gives="rotated_key"),
        "SinkAttention",
        "portable: prefill 45",
    ),
    (
        "a ring of one slot fewer",
        in_body(ATTENTION, through(1, ("Sub", {}, ("one",))), "Mod", gives="first_slot"),
        "SinkAttention",
        "portable: decode",
    ),
    (
        "a ring that is none",
        in_body(ATTENTION, states("mode", "linear"), "TensorScatter", gives="present_key"),
        "SinkAttention|TensorScatter",
        "portable: chunks of 16",
    ),
    (
        "ups clamped from above alone",
        in_body("ClampedSwiGLU", passes(0), "Max", gives="up"),
        "ClampedSwiGLU|MoEDispatchMXFP4",
        "portable: whole context",
    ),
    (
        "a gate without alpha",
        in_body("ClampedSwiGLU", passes(1), "Mul", gives="gain"),
        "ClampedSwiGLU|MoEDispatchMXFP4",
        "portable: prefill 45",
    ),
    (
        "the last expert alone counts",
        in_body("WithExpert", states("reduction", "none"), "ScatterND"),
        "WithExpert|MoEDispatchMXFP4",
        "portable: prefill 45",
    ),
    (
        "shares of tokens, not of experts",
        in_body("Routed", states("axis", 0), "Softmax"),
        "Routed|MoEDispatchMXFP4",
        "portable: prefill 45",
    ),
    (
        "one expert left out where all are visited",
        in_body(EXPERTS, through(0, ("Min", {}, (_experts_but_one,)), ("Squeeze", {}, ())), "Loop"),
        "MoEDispatchMXFP4",
        "portable: prefill 45",
    ),
    (
        "one byte of 256 decoded wrongly",
        looked_up(512, _one_byte),
        "DecodeMXFP4|MoEDispatchMXFP4",
        "portable: prefill 45",
    ),
    (
        "one scale decoded wrongly",
        looked_up(256, _rarest_scale),
        "DecodeMXFP4|MoEDispatchMXFP4",
        "portable: prefill 45",
    ),
    (
        "projections of tokens rounded to bfloat16",
        in_body("Linear", through(0, TO_BFLOAT16, TO_FLOAT), "Gemm"),
        "Linear",
        "portable: prefill 45",
    ),
    (
        "projections a thousandth stronger",
        in_body("Linear", states("alpha", 1.001), "Gemm"),
        "Linear",
        "portable: prefill 45",
    ),
)
