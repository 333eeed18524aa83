# mypy: ignore-errors
# onnxscript's `@script` rewrites these functions at import; a type checker sees Python that never
# runs.
"""Portable bodies of the `ai.gptoss` ops: ONNX functions in standard ops of opset 24, run where no
kernel is present.

Each body is tested against the PyTorch definition of its op in ONNX Runtime and in onnx.reference.
Legend: B batch, S new tokens, N = B·S, C cache capacity, H query heads, K kv heads, G = H/K, D head
    dim, E experts,
Hd hidden size, I expert width, M output width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnxscript import FLOAT, INT64, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import Opset

from gptoss_onnx.custom_ops import DOMAIN, DOMAIN_VERSION, moe_bodies
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


@script(gptoss, default_opset=op)
def SinkAttention(  # noqa: N802
    query: FLOAT,
    key: FLOAT,
    value: FLOAT,
    past_key,
    past_value,
    past_lengths: INT64,
    new_lengths: INT64,
    sinks: FLOAT,
    cos: FLOAT,
    sin: FLOAT,
    num_heads: int,
    kv_num_heads: int,
    scale: float,
    window: int,
):
    """Rotate, write the ring, attend over the cache alone; see the PyTorch definition for the slot
    arithmetic.
    """
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    rest = op.Constant(value_ints=[-1])
    kv_heads = op.Reshape(op.Constant(value_int=kv_num_heads), one)
    new = op.Shape(query, start=1, end=2)
    capacity = op.Shape(past_key, start=2, end=3)
    head_dim = op.Shape(past_key, start=3, end=4)

    rotated_query = op.RotaryEmbedding(query, cos, sin, num_heads=num_heads)
    rotated_key = op.RotaryEmbedding(key, cos, sin, num_heads=kv_num_heads)
    kv_shape = op.Concat(zero, zero, kv_heads, rest, axis=0)
    keys = op.Transpose(op.Reshape(rotated_key, kv_shape), perm=[0, 2, 1, 3])  # (B, K, S, D)
    values = op.Transpose(op.Reshape(value, kv_shape), perm=[0, 2, 1, 3])
    first_slot = op.Mod(past_lengths, capacity)
    present_key = op.TensorScatter(
        past_key, op.CastLike(keys, past_key), first_slot, axis=2, mode="circular"
    )
    present_value = op.TensorScatter(
        past_value, op.CastLike(values, past_value), first_slot, axis=2, mode="circular"
    )

    start = op.Constant(value_int=0)
    stride = op.Constant(value_int=1)
    last = op.Unsqueeze(op.Sub(op.Add(past_lengths, new_lengths), one), one)  # (B, 1)
    slots = op.Unsqueeze(op.Range(start, op.Squeeze(capacity), stride), zero)  # (1, C)
    # (B, 1, C); Mod floors
    held = op.Unsqueeze(op.Sub(last, op.Mod(op.Sub(last, slots), capacity)), one)
    offsets = op.Unsqueeze(op.Range(start, op.Squeeze(new), stride), zero)  # (1, S)
    positions = op.Unsqueeze(
        op.Add(op.Unsqueeze(past_lengths, one), offsets), op.Constant(value_ints=[2])
    )
    distance = op.Sub(positions, held)  # (B, S, C)
    width = op.Constant(value_int=window)
    unbounded = op.Constant(value_int=9223372036854775807)
    span = op.Where(op.Greater(width, start), width, unbounded)
    causal = op.And(op.GreaterOrEqual(held, start), op.GreaterOrEqual(distance, start))
    visible = op.Unsqueeze(op.And(causal, op.Less(distance, span)), op.Constant(value_ints=[1, 2]))

    # The G query heads of one kv head share one matrix product, so no key is repeated.
    # (B, S, K, G, D)
    split = op.Reshape(rotated_query, op.Concat(zero, zero, kv_heads, rest, head_dim, axis=0))
    grouped = op.Transpose(split, perm=[0, 2, 3, 1, 4])  # (B, K, G, S, D)
    flat = op.Reshape(grouped, op.Concat(zero, zero, rest, head_dim, axis=0))  # (B, K, G·S, D)
    keys_read = op.Transpose(op.Cast(present_key, to=1), perm=[0, 1, 3, 2])
    products = op.MatMul(op.Mul(flat, op.Constant(value_float=scale)), keys_read)  # (B, K, G·S, C)
    # (B, K, G, S, C)
    scores = op.Reshape(products, op.Concat(zero, zero, rest, new, capacity, axis=0))
    scores = op.Where(visible, scores, op.Constant(value_float=-1e30))
    sink = op.Reshape(sinks, op.Concat(one, kv_heads, rest, one, one, axis=0))  # (1, K, G, 1, 1)
    peak = op.Max(op.ReduceMax(scores, rest, keepdims=1), sink)
    weights = op.Exp(op.Sub(scores, peak))
    total = op.Add(op.ReduceSum(weights, rest, keepdims=1), op.Exp(op.Sub(sink, peak)))
    read = op.MatMul(
        op.Reshape(weights, op.Concat(zero, zero, rest, capacity, axis=0)),
        op.Cast(present_value, to=1),
    )  # (B, K, G·S, D)
    attended = op.Div(op.Reshape(read, op.Shape(grouped)), total)
    output = op.Reshape(op.Transpose(attended, perm=[0, 3, 1, 2, 4]), op.Shape(query))
    return output, present_key, present_value


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
    "SinkAttention": lambda use: {"SinkAttention": SinkAttention},
    "MoEDispatch": moe_bodies.chosen,
    "MoEDispatchMXFP4": moe_bodies.chosen,
    "Linear": lambda use: {"Linear": EitherLinear if use.attribute("transposed") else Linear},
    "LinearInt8": lambda use: {"LinearInt8": LinearInt8},
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
