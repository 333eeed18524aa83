# mypy: ignore-errors
# onnxscript's `@script` rewrites these functions at import; a type checker sees Python that never
# runs.
"""Portable bodies of the `ai.gptoss` ops: ONNX functions in standard ops of opset 24, run where no
kernel is present.

Each body is tested against the PyTorch definition of its op in ONNX Runtime and in onnx.reference.
Legend: N tokens, E experts, Hd hidden size, I expert width, M output width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnxscript import FLOAT, UINT8, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import Opset

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION, attention_bodies
from gptoss_onnx.custom_ops.schemas import SIGNATURES
from gptoss_onnx.errors import InputError

OPSET_VERSION = 24
gptoss = Opset(DOMAIN, DOMAIN_VERSION)

_LEVELS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
_BYTES = np.arange(256)
# One Gather decodes both nibbles of a byte, low nibble first; another turns an E8M0 byte into
# 2^(byte − 127).
_BYTE_TO_LEVELS = onnx.numpy_helper.from_array(
    np.stack((_LEVELS[_BYTES & 15], _LEVELS[_BYTES >> 4]), axis=-1), "byte_to_levels"
)
_FACTORS = np.where(_BYTES == 255, np.nan, np.exp2(_BYTES - 127.0)).astype(np.float32)
_SCALE_TO_FACTOR = onnx.numpy_helper.from_array(_FACTORS, "scale_to_factor")


@script(gptoss, default_opset=op)
def DecodeMXFP4(blocks: UINT8, scales: UINT8) -> FLOAT:  # noqa: N802
    """Decode (R, G, 16) bytes with (R, G) scales to (R, G·32)."""
    pairs = op.Gather(op.Constant(value=_BYTE_TO_LEVELS), op.Cast(blocks, to=6))  # (R, G, 16, 2)
    values = op.Reshape(pairs, op.Constant(value_ints=[0, 0, 32]))
    factors = op.Gather(op.Constant(value=_SCALE_TO_FACTOR), op.Cast(scales, to=6))  # (R, G)
    scaled = op.Mul(values, op.Unsqueeze(factors, op.Constant(value_ints=[-1])))
    return op.Reshape(scaled, op.Constant(value_ints=[0, -1]))


@script(gptoss, default_opset=op)
def ClampedSwiGLU(gate_up: FLOAT, alpha: float, limit: float) -> FLOAT:  # noqa: N802
    """Activate interleaved (n, 2I) to (n, I): (up + 1) · gate · σ(alpha · gate), both clamped."""
    pairs = op.Reshape(gate_up, op.Constant(value_ints=[0, -1, 2]))
    top = op.Constant(value_float=limit)
    gate = op.Min(op.Gather(pairs, op.Constant(value_int=0), axis=2), top)
    up = op.Max(op.Min(op.Gather(pairs, op.Constant(value_int=1), axis=2), top), op.Neg(top))
    gain = op.Mul(op.Constant(value_float=alpha), gate)
    return op.Mul(op.Mul(op.Add(up, op.Constant(value_float=1.0)), gate), op.Sigmoid(gain))


@script(gptoss, default_opset=op)
def MoEDispatchMXFP4(  # noqa: N802
    hidden: FLOAT,
    router_logits: FLOAT,
    gate_up_blocks: UINT8,
    gate_up_scales: UINT8,
    gate_up_bias: FLOAT,
    down_blocks: UINT8,
    down_scales: UINT8,
    down_bias: FLOAT,
    top_k: int,
    alpha: float,
    limit: float,
) -> FLOAT:
    """Loop over the experts that some token chose: decode, run its tokens, add their weighted
    results.
    """
    one = op.Constant(value_ints=[1])
    logits, chosen = op.TopK(router_logits, op.Reshape(op.Constant(value_int=top_k), one))
    shares = op.Softmax(logits, axis=-1)
    experts, _first, _inverse, _counts = op.Unique(chosen)
    output = op.Sub(hidden, hidden)
    for step in range(op.Size(experts)):
        expert = op.Gather(experts, step)
        masked = op.Where(op.Equal(chosen, expert), shares, op.Constant(value_float=0.0))
        share = op.ReduceSum(masked, one, keepdims=0)  # (N)
        rows = op.Transpose(op.NonZero(share), perm=[1, 0])  # (n, 1)
        # (2I, Hd)
        gate_up = DecodeMXFP4(op.Gather(gate_up_blocks, expert), op.Gather(gate_up_scales, expert))
        # (Hd, I)
        down = DecodeMXFP4(op.Gather(down_blocks, expert), op.Gather(down_scales, expert))
        wide = op.Gemm(
            op.GatherND(hidden, rows), gate_up, op.Gather(gate_up_bias, expert), transB=1
        )
        narrow = op.Gemm(
            ClampedSwiGLU(wide, alpha=alpha, limit=limit),
            down,
            op.Gather(down_bias, expert),
            transB=1,
        )
        weighted = op.Mul(narrow, op.Unsqueeze(op.GatherND(share, rows), one))
        output = op.ScatterND(output, rows, weighted, reduction="add")
    return output


@script(gptoss, default_opset=op)
def MoEDispatch(  # noqa: N802
    hidden: FLOAT,
    router_logits: FLOAT,
    gate_up,
    gate_up_bias: FLOAT,
    down,
    down_bias: FLOAT,
    top_k: int,
    alpha: float,
    limit: float,
) -> FLOAT:
    """Loop over the experts that some token chose, on dense weights (E, Hd, 2I) and (E, I, Hd)."""
    one = op.Constant(value_ints=[1])
    logits, chosen = op.TopK(router_logits, op.Reshape(op.Constant(value_int=top_k), one))
    shares = op.Softmax(logits, axis=-1)
    experts, _first, _inverse, _counts = op.Unique(chosen)
    output = op.Sub(hidden, hidden)
    for step in range(op.Size(experts)):
        expert = op.Gather(experts, step)
        masked = op.Where(op.Equal(chosen, expert), shares, op.Constant(value_float=0.0))
        share = op.ReduceSum(masked, one, keepdims=0)  # (N)
        rows = op.Transpose(op.NonZero(share), perm=[1, 0])  # (n, 1)
        wide = op.Gemm(
            op.GatherND(hidden, rows),
            op.Cast(op.Gather(gate_up, expert), to=1),
            op.Gather(gate_up_bias, expert),
        )
        narrow = op.Gemm(
            ClampedSwiGLU(wide, alpha=alpha, limit=limit),
            op.Cast(op.Gather(down, expert), to=1),
            op.Gather(down_bias, expert),
        )
        weighted = op.Mul(narrow, op.Unsqueeze(op.GatherND(share, rows), one))
        output = op.ScatterND(output, rows, weighted, reduction="add")
    return output


@script(gptoss, default_opset=op)
def Linear(x: FLOAT, weight, bias: FLOAT) -> FLOAT:  # noqa: N802
    """Multiply (N, K) by (M, K) transposed; an omitted bias stays omitted in Gemm, so it is never
    cast here.
    """
    return op.Gemm(x, op.Cast(weight, to=1), bias, transB=1)


@script(gptoss, default_opset=op)
def LinearInt8(x: FLOAT, weight, scales: FLOAT, bias: FLOAT) -> FLOAT:  # noqa: N802
    """Multiply (N, K) by int8 (M, K) transposed, each block of 32 times its scale; the bias as in
    Linear.

    No DequantizeLinear: runtimes replace it, before a product, by kernels that round the tokens to
    8 bits.
    """
    blocks = op.Reshape(op.Cast(weight, to=1), op.Constant(value_ints=[0, -1, 32]))  # (M, K/32, 32)
    scaled = op.Mul(blocks, op.Unsqueeze(scales, op.Constant(value_ints=[-1])))
    return op.Gemm(x, op.Reshape(scaled, op.Constant(value_ints=[0, -1])), bias, transB=1)


@dataclass(frozen=True)
class Use:
    """How a node uses its op: what the choice of a body may depend on.

    An ONNX function cannot ask whether an optional input is there or what a string attribute says,
    so nodes that differ in that need different bodies.
    """

    op: str
    # of each input that the node has; None where a dimension, or the whole shape, is not known
    shapes: Mapping[str, tuple[int | None, ...] | None]
    attributes: Mapping[str, int | float | str]  # those that the node states

    def has(self, name: str) -> bool:
        """Say whether the node has this input."""
        return name in self.shapes

    def attribute(self, name: str) -> int | float | str | None:
        """Return what the node states, or the attribute's default."""
        declared = {a.name: a.default for a in SIGNATURES[self.op].attributes}
        return self.attributes.get(name, declared[name])


# How a node uses its op → the op's body, after every helper function that it calls: the name by
# which it is called → the function. Variants of a helper share a name.
BODIES = {
    "SinkAttention": attention_bodies.chosen,
    "MoEDispatch": lambda use: {"ClampedSwiGLU": ClampedSwiGLU, "MoEDispatch": MoEDispatch},
    "MoEDispatchMXFP4": lambda use: {
        "DecodeMXFP4": DecodeMXFP4,
        "ClampedSwiGLU": ClampedSwiGLU,
        "MoEDispatchMXFP4": MoEDispatchMXFP4,
    },
    "Linear": lambda use: {"Linear": Linear},
    "LinearInt8": lambda use: {"LinearInt8": LinearInt8},
}


def function_protos(uses) -> list[onnx.FunctionProto]:
    """Return the bodies for these uses and the helpers they call, callees first, each once.

    Args:
        uses: a `Use` for each node of the graph, in any order.

    Raises:
        InputError: two nodes would need different bodies; a model has one of each.
    """
    chosen, with_helpers, stated = {}, set(), set()
    for use in sorted(uses, key=lambda use: use.op):
        functions = BODIES[use.op](use)
        stated.update((use.op, name) for name in use.attributes)
        if len(functions) > 1:
            with_helpers.update(functions)
        for name, function in functions.items():
            if chosen.setdefault(name, function) is not function:
                raise InputError(
                    f"{use.op}: found nodes that need different portable bodies ('{name}'), "
                    "expected all to have the same optional inputs and the same variant"
                )
    return [
        _proto(name, function, name in with_helpers, stated) for name, function in chosen.items()
    ]


def _proto(name, function, with_helpers: bool, stated) -> onnx.FunctionProto:
    proto = function.to_function_proto()
    proto.name = name
    if with_helpers and DOMAIN not in {entry.domain for entry in proto.opset_import}:
        # onnxscript omits the import of its own domain
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    _state_loop_condition(proto)
    for default in reversed(proto.attribute_proto):
        if (name, default.name) not in stated:
            _settle(proto, default)
    return proto


def _settle(proto, default: onnx.AttributeProto) -> None:
    """Write the default of an attribute that no node states into the body: onnx.reference knows no
    defaults.
    """
    proto.attribute_proto.remove(default)
    for attribute in _attributes(proto.node):
        if attribute.ref_attr_name == default.name:
            name = attribute.name
            attribute.CopyFrom(default)
            attribute.name = name


def _attributes(nodes):
    """Yield the attributes of all nodes, those in subgraphs too."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield attribute
        yield from _attributes(attribute.g.node)


def _state_loop_condition(proto) -> None:
    """Give every Loop of the body a constant true condition: onnx.reference runs no iteration where
    it is omitted.
    """
    for index, node in reversed(list(enumerate(proto.node))):
        if node.op_type == "Loop" and not node.input[1]:
            node.input[1] = f"{node.name or node.op_type}_condition"
            condition = onnx.helper.make_tensor("condition", onnx.TensorProto.BOOL, [], [True])
            proto.node.insert(
                index, onnx.helper.make_node("Constant", [], [node.input[1]], value=condition)
            )
