"""Graph pass: readable, stable names and nothing left of how the graph was traced.

Matches every node and every intermediate value of the main graph. A node is named after the module
it came from and its op (`model.layers.0.self_attn.q_proj.Linear`), its outputs after the node; a
second node of the same name gets a number. Shape constants become `constant_0`, … The batch size,
which torch reads from any of the inputs that have it, is read from `past_lengths`. Leaves alone:
graph inputs and outputs, initializers with a checkpoint's name, function bodies, and the order of
nodes. Deterministic: the same graph always gets the same names.
"""

from collections import Counter
from importlib.metadata import version

import onnx_ir as ir

GRAPH_NAME = "decoder"
_SCOPES = "pkg.torch.onnx.name_scopes"


def tidy(model: ir.Model, weights: frozenset[str]) -> ir.Model:
    """Rename nodes and values of `model` in place and drop tracing metadata; returns it.

    Args:
        model: a traced graph.
        weights: the initializer names to keep, those of the checkpoint.
    """
    graph = model.graph
    interface = {value.name for value in (*graph.inputs, *graph.outputs)}
    taken: Counter[str] = Counter()
    for node in graph:
        node.name = _unique(f"{_scope(node)}{node.op_type}", taken)
        for output in node.outputs:
            if output.name not in interface:
                suffix = "" if len(node.outputs) == 1 else f"_{output.index()}"
                output.name = f"{node.name}.output{suffix}"
    _read_batch_from_lengths(graph)
    _name_constants(graph, weights)
    _drop_metadata(model)
    graph.name = GRAPH_NAME
    model.producer_name, model.producer_version = "gptoss-onnx", version("gptoss-onnx")
    return model


def _scope(node: ir.Node) -> str:
    """Return the dotted path of the module a node came from, with a trailing dot, or nothing for
    the top level. What the optimizer made belongs to the node whose result it takes.
    """
    recorded = node.metadata_props.get(_SCOPES)
    if recorded is None:
        producer = node.inputs[0].producer() if node.inputs and node.inputs[0] else None
        return "" if producer is None else _scope(producer)
    scopes = [part.strip("'\" ") for part in recorded.strip("[]").split(",")]
    modules = [scope for scope in scopes[:-1] if scope and not scope.startswith("_")]
    return f"{modules[-1]}." if modules else ""


def _unique(name: str, taken: Counter[str]) -> str:
    taken[name] += 1
    return name if taken[name] == 1 else f"{name}_{taken[name]}"


def _read_batch_from_lengths(graph: ir.Graph) -> None:
    """Let every Shape that gives the batch size alone read the same input."""
    lengths = next(value for value in graph.inputs if value.name == "past_lengths")
    for node in graph:
        if node.op_type != "Shape":
            continue
        start, end = (node.attributes.get_int(name, 0) for name in ("start", "end"))
        if (start, end) == (0, 1):
            node.replace_input_with(0, lengths)


def _name_constants(graph: ir.Graph, weights: frozenset[str]) -> None:
    constants = [value for name, value in graph.initializers.items() if name not in weights]
    for index, value in enumerate(constants):
        value.name = f"constant_{index}"
        if value.const_value is not None:
            value.const_value.name = value.name


def _drop_metadata(model: ir.Model) -> None:
    graph = model.graph
    values = [value for node in graph for value in node.outputs]
    for holder in (model, graph, *graph, *values, *graph.inputs, *graph.initializers.values()):
        holder.metadata_props.clear()
    for node in graph:
        node.doc_string = None
    model.doc_string = graph.doc_string = None
