"""Graph pass of the portable target: experts that the checkpoint stores one by one stay where they
lie.

Matches every MoEDispatch whose weights are the rows of one gate, one up and one down matrix for
each expert, and makes it MoEDispatchSeparate on these matrices: none is copied, and only those
that an adapter changes are written anew. Does so for all of a graph or for none, since its layers
share one body: `separate_parameters` says what for. Leaves alone: stacked experts, and those that
have to be computed from something else, as FP8.
"""

import onnx_ir as ir

from gptoss_onnx.checkpoint.tensors import Parameter, TensorInfo
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.schemas import MOE_DISPATCH_SEPARATE
from gptoss_onnx.exporter.assembled import Rows
from gptoss_onnx.exporter.external_data import ELEMENT_TYPES, byte_range
from gptoss_onnx.exporter.nodes import make_node, replace
from gptoss_onnx.exporter.trace import attach_bodies
from gptoss_onnx.exporter.weights import Placement
from gptoss_onnx.reference.adapters.low_rank import Adapted
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.config import ExpertsConfig
from gptoss_onnx.reference.parameters import MOST_MATRICES, reads_apart

_NAMES = ("gate_up_proj", "down_proj")


def separate_parameters(checkpoint: Checkpoint) -> frozenset[str]:
    """Return the parameters, by the graph's names, whose matrices the graph will read one by one.

    These are the weights of all experts of a checkpoint or of none.
    """
    layers = [
        (index, part)
        for index, layer in enumerate(checkpoint.config.layers)
        if isinstance(part := layer.feed_forward, ExpertsConfig)
    ]
    if len({part.count for _, part in layers}) != 1 or not all(reads_apart(p) for _, p in layers):
        return frozenset()
    pairs = [
        [checkpoint.parameters[f"model.layers.{index}.mlp.experts.{name}"] for name in _NAMES]
        for index, _ in layers
    ]
    parts = [part for _, part in layers]
    if not all(_lie_apart(part, *pair) for part, pair in zip(parts, pairs, strict=True)):
        return frozenset()
    parameters = [parameter for pair in pairs for parameter in pair]
    if sum(len(parameter.sources) for parameter in parameters) > MOST_MATRICES:
        return frozenset()
    return frozenset(parameter.name for parameter in parameters)


def _lie_apart(part: ExpertsConfig, gate_up: Parameter, down: Parameter) -> bool:
    """Say whether a layer's experts are stored as three matrices each, all of one dtype."""
    stored = (len(gate_up.sources), len(down.sources)) == (2 * part.count, part.count)
    own = all(isinstance(one.computed, Adapted | None) for one in (gate_up, down))
    return stored and own and not _base_computed(gate_up, down) and gate_up.dtype == down.dtype


def _base_computed(*parameters: Parameter) -> bool:
    """Say whether one is computed even without its adapters."""
    found = (entry.computed for entry in parameters)
    return any(isinstance(one, Adapted) and one.base.computed is not None for one in found)


def separate_experts(
    model: ir.Model, checkpoint: Checkpoint, placement: Placement, names: frozenset[str]
) -> dict[str, Rows]:
    """Rewrite `model`, in place, to read the matrices of these parameters where they lie.

    Returns those that an adapter changes: initializers without a value, by name, and which rows of
    which parameter they are.

    Args:
        model: the graph, with the checkpoint's names.
        checkpoint: where the matrices are.
        placement: where the package has the checkpoint's files.
        names: what `separate_parameters` returns.
    """
    if not names:
        return {}
    graph = model.graph
    changed: dict[str, Rows] = {}
    for node in [node for node in graph if node.op_type == "MoEDispatch"]:
        hidden, logits, gate_up, _, down, *_ = node.inputs
        assert gate_up is not None
        assert down is not None
        both = _matrices(checkpoint.named[str(gate_up.name)])  # gate and up of each expert
        matrices = [*both[0::2], *both[1::2], *_matrices(checkpoint.named[str(down.name)])]
        weights = [_initializer(graph, *matrix, placement) for matrix in matrices]
        changed |= {info.name: rows for info, rows in matrices if rows.are_computed}
        kept = {a.name for a in MOE_DISPATCH_SEPARATE.attributes}
        attributes = {
            name: attribute.value for name, attribute in node.attributes.items() if name in kept
        }
        inputs = [hidden, logits, *weights]
        new = make_node(node, "MoEDispatchSeparate", inputs, attributes, domain=DOMAIN)
        replace(graph, node, [new])
    attach_bodies(model)
    return changed


def _matrices(parameter: Parameter) -> list[tuple[TensorInfo, Rows]]:
    """Return the matrices that a parameter is stored as, and which of its rows each is."""
    each = parameter.rows // len(parameter.sources)
    return [
        (source, Rows(parameter, index * each, (index + 1) * each))
        for index, source in enumerate(parameter.sources)
    ]


def _initializer(graph: ir.Graph, matrix: TensorInfo, rows: Rows, placement: Placement) -> ir.Value:
    """Add a matrix to the graph: a range of bytes of its file, or without a value."""
    value = ir.Value(
        name=matrix.name,
        shape=ir.Shape(matrix.shape),
        type=ir.TensorType(ELEMENT_TYPES[matrix.dtype]),
    )
    if not rows.are_computed:
        location = placement.locations[matrix.file]
        value.const_value = byte_range(matrix, location, matrix.offset)
    graph.initializers[matrix.name] = value
    return value
