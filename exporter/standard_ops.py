"""Graph pass of the openvino target: a portable graph in standard ops that runtimes beside ONNX
Runtime know as well.

Matches every call of a function, every TensorScatter along the third axis, every Cast of the main
graph to the type that a value has, and every input that a node leaves out at the end by an empty
name, in subgraphs too. The body takes the place of a call; ScatterElements at computed slots that
of a TensorScatter. Casts to the same type go: OpenVINO drops them itself, and then an output of the
graph has two names. A node of a body is named after the call
and its op (`model.layers.0.self_attn.SinkAttention.MatMul_2`), its outputs after the node. Leaves
alone: all other nodes, weights, and the graph's inputs and outputs. Deterministic.

Legend: B batch, S new tokens, K kv heads, C cache capacity, D head dim.
"""

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter.nodes import constant, replace

_CALL = "gptoss_onnx.call"  # metadata of a node of a body: the node that called it


def in_standard_ops(model: ir.Model) -> ir.Model:
    """Rewrite `model` in place and return it.

    Args:
        model: a portable graph, whose nodes have names, each its own; or what this pass has made,
            which stays as it is.

    Raises:
        PackageError: a TensorScatter is not one that an export writes.
    """
    graph = model.graph
    known = {value.name for node in graph for value in node.outputs}
    for node in graph:
        if node.op_identifier() in model.functions:
            node.metadata_props[_CALL] = str(node.name)  # inlining hands it on to the body's nodes
    InlinePass()(model)
    graph.opset_imports.pop(DOMAIN, None)
    for node in [node for node in graph if node.op_type == "TensorScatter"]:
        new = list(_scatter(graph, node))
        for each in new:
            each.metadata_props.update(node.metadata_props)
        replace(graph, node, new)
    for node in [node for node in graph if node.op_type == "Cast"]:
        (source,), (wanted,) = node.inputs, node.outputs
        if source is None or wanted.is_graph_output():
            continue
        if source.dtype == node.attributes["to"].as_int():
            ir.convenience.replace_all_uses_with(wanted, source)
            graph.remove(node, safe=True)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        while node.inputs and node.inputs[-1] is None:
            node.resize_inputs(len(node.inputs) - 1)
    _name_bodies(graph, known)
    return model


def _scatter(graph: ir.Graph, old: ir.Node) -> Iterator[ir.Node]:
    """Yield nodes, the last of which writes `update` (B, K, S, D) into `past` (B, K, C, D), column
    s at slot start + s; where the mode is circular, that modulo C.
    """
    axis, mode = old.attributes.get_int("axis", -2), old.attributes.get_string("mode", "linear")
    past, update, start, *_ = *old.inputs, None
    if axis not in (-2, 2) or past is None or update is None or start is None:
        where = "no write_indices" if axis in (-2, 2) else f"axis {axis}"
        raise PackageError(
            f"{old.name}: TensorScatter with {where}, expected write_indices and axis 2"
        )
    zero = constant(graph, "slots.zero", np.array(0, np.int64))
    one = constant(graph, "slots.one", np.array(1, np.int64))
    columns = constant(graph, "slots.columns", np.array([1], np.int64))
    others = constant(graph, "slots.others", np.array([1, 3], np.int64))
    yield (new := ir.node("Shape", [update], {"start": 2, "end": 3}))
    yield (count := ir.node("Squeeze", new.outputs))
    yield (offsets := ir.node("Range", [zero, count.outputs[0], one]))  # (S)
    yield (first := ir.node("Unsqueeze", [start, columns]))  # (B, 1)
    yield (slots := ir.node("Add", [first.outputs[0], offsets.outputs[0]]))  # (B, S)
    if mode == "circular":
        yield (capacity := ir.node("Shape", [past], {"start": 2, "end": 3}))
        yield (slots := ir.node("Mod", [slots.outputs[0], capacity.outputs[0]]))
    yield (places := ir.node("Unsqueeze", [slots.outputs[0], others]))  # (B, 1, S, 1)
    yield (shape := ir.node("Shape", [update]))
    yield (every := ir.node("Expand", [places.outputs[0], shape.outputs[0]]))  # (B, K, S, D)
    yield ir.node("ScatterElements", [past, every.outputs[0], update], {"axis": 2})


def _name_bodies(graph: ir.Graph, known: Collection[str | None]) -> None:
    """Name the nodes that came from bodies, what they give, and what their subgraphs take.

    Values that are `known` by their names are those of the calls, of traced types and shapes. The
    others lose theirs: a body has the shape of no tensor.
    """
    taken = Counter(node.name for node in graph if _CALL not in node.metadata_props)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        call = node.metadata_props.pop(_CALL, None)
        if call is None:
            continue
        stem = f"{call}.{node.op_type}"
        taken[stem] += 1
        node.name = stem if taken[stem] == 1 else f"{stem}_{taken[stem]}"
        for output in node.outputs:
            if output.name not in known:
                suffix = "" if len(node.outputs) == 1 else f"_{output.index()}"
                output.name = f"{node.name}.output{suffix}"
                output.type = output.shape = None
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.GRAPH:
                inner = attribute.as_graph()
                inner.name = f"{node.name}.{name}"
                for index, value in enumerate(inner.inputs):
                    value.name = f"{inner.name}.input_{index}"
