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

import onnx
from onnxscript import FLOAT, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import Opset

from gptoss_onnx.custom_ops import (
    DOMAIN,
    DOMAIN_VERSION,
    attention_bodies,
    moe_bodies,
    moe_separate_body,
)
from gptoss_onnx.custom_ops.packed_body import LinearPacked
from gptoss_onnx.custom_ops.schemas import SIGNATURES
from gptoss_onnx.errors import InputError

OPSET_VERSION = 24
gptoss = Opset(DOMAIN, DOMAIN_VERSION)


@script(gptoss, default_opset=op)
def Linear(x: FLOAT, weight, bias: FLOAT) -> FLOAT:  # noqa: N802
    """Multiply (N, K) by (M, K) transposed; an omitted bias stays omitted in Gemm, so it is never
    cast here.
    """
    return op.Gemm(x, op.Cast(weight, to=1), bias, transB=1)


@script(gptoss, default_opset=op)
def EitherLinear(x: FLOAT, weight, bias: FLOAT, transposed: int = 0) -> FLOAT:  # noqa: N802
    """Multiply (N, K) by (M, K) transposed, or by (K, M) as it is."""
    wide = op.Cast(weight, to=1)
    if op.Cast(op.Constant(value_int=transposed), to=9):
        rows = op.Transpose(wide, perm=[1, 0])
    else:
        rows = op.Identity(wide)
    return op.Gemm(x, rows, bias, transB=1)


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
    inputs: int = 0  # how many the node has, which an op with a variadic input asks

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
    "MoEDispatch": moe_bodies.chosen,
    "MoEDispatchMXFP4": moe_bodies.chosen,
    "MoEDispatchSeparate": moe_separate_body.chosen,
    "Linear": lambda use: {"Linear": EitherLinear if use.attribute("transposed") else Linear},
    "LinearInt8": lambda use: {"LinearInt8": LinearInt8},
    "LinearPacked": lambda use: {"LinearPacked": LinearPacked},
}

# A body → the simpler one whose nodes it serves as well, where a graph has both.
SERVES = {EitherLinear: Linear}


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
            kept = chosen.setdefault(name, function)
            if SERVES.get(function) is kept:
                chosen[name] = function
            elif function not in (kept, SERVES.get(kept)):
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
