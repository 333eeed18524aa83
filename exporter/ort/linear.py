"""Graph pass of the ort target: projections become Gemm, on the CPU a few rows of the weight at a
time.

Matches every Linear. ONNX Runtime's CPU provider has no matrix product in bfloat16, and a Cast of a
weight would be folded into a copy in anonymous memory. So a Scan runs over chunks of the weight, as
the checkpoint has it: its body casts a chunk to float32 and multiplies with that. What a Scan runs
over is no constant to ONNX Runtime, which neither folds the Cast nor packs the weight; and the cast
chunk is small enough to stay in the cache. A transposed weight, (in, out), has no rows that are
outputs, and CUDA gets its own types in a later pass: these become Gemm on the weight widened to
float32, which loses nothing either. Leaves alone: the bias, which the graph casts already.

Legend: N tokens, K input width, M output width, C chunks of R rows each.
"""

import numpy as np
import onnx_ir as ir

from gptoss_onnx.choices import Provider
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.exporter.nodes import constant, make_node, replace
from gptoss_onnx.exporter.ort.weights import OrtWeights

CHUNK = 4 << 20  # bytes of float32, the best of 1 to 16 MiB: docs/adr/0014
_ROWS = 16  # that a Gemm computes side by side: chunks are multiples of it


def lower_linear(model: ir.Model, weights: OrtWeights, provider: Provider) -> None:
    """Replace every Linear of `model` in place; the weights are added to `weights`."""
    for node in [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, "Linear")]:
        hidden, weight, *bias = node.inputs
        assert weight is not None
        if "transposed" in node.attributes or provider == "cuda":
            wide = weights.float32(model.graph, weight)
            attributes = {} if "transposed" in node.attributes else {"transB": 1}
            new = [make_node(node, "Gemm", [hidden, wide, *bias], attributes)]
        else:
            new = _in_chunks(model.graph, node, weights)
        replace(model.graph, node, new)


def chunk_rows(rows: int, columns: int) -> int:
    """Return how many rows of a weight (M, K) are cast at a time.

    All of them, if they fit; otherwise the most that M is a multiple of, unless that is less than
    half of what fits: then what fits, and the last chunk is smaller.
    """
    fitting = max(_ROWS, CHUNK // (4 * columns) // _ROWS * _ROWS)
    if rows <= fitting:
        return rows
    even = max(count for count in range(1, fitting + 1) if rows % count == 0)
    return even if 2 * even >= fitting else fitting


def _in_chunks(graph: ir.Graph, old: ir.Node, weights: OrtWeights) -> list[ir.Node]:
    hidden, weight, *biases = old.inputs
    assert hidden is not None
    assert weight is not None
    assert weight.shape is not None
    rows, columns = weight.shape.numpy()
    size = chunk_rows(rows, columns)
    even = rows // size * size
    new = []
    parts = []
    for first, end in ((0, even), (even, rows)):
        if first == end:
            continue
        length = min(size, end - first)
        chunks = weights.chunks(graph, weight, first, ((end - first) // length, length, columns))
        nodes = _scan(graph, old, chunks, "" if end - first == rows else f".rows_{first}")
        new += nodes
        parts.append(nodes[-1].outputs[0])
    if len(parts) > 1:
        new.append(make_node(old, "Concat", parts, {"axis": 1}))
    for bias in biases:
        if bias is not None:
            new.append(make_node(old, "Add", [new[-1].outputs[0], bias]))
    return new


def _scan(graph: ir.Graph, old: ir.Node, chunks: ir.Value, suffix: str) -> list[ir.Node]:
    """Return nodes, the last of which gives hidden · chunksᵀ, (N, C·R)."""
    attributes = {
        "body": _body(old, chunks),
        "num_scan_inputs": 1,
        "scan_output_axes": [1],
    }
    scan = make_node(old, "Scan", [chunks], attributes, suffix=suffix)  # (N, C, R)
    flat = constant(graph, "linear.flat", np.array([0, -1], np.int64))
    return [scan, make_node(old, "Reshape", [scan.outputs[0], flat], suffix=suffix)]


def _body(old: ir.Node, chunks: ir.Value) -> ir.Graph:
    """Return the graph that multiplies with one chunk (R, K)."""
    hidden = old.inputs[0]
    assert chunks.shape is not None
    assert chunks.dtype is not None
    _, rows, columns = chunks.shape.numpy()
    stem = chunks.name
    chunk = ir.Value(
        name=f"{stem}.chunk", shape=ir.Shape([rows, columns]), type=ir.TensorType(chunks.dtype)
    )
    nodes = []
    wide = chunk
    if chunks.dtype != ir.DataType.FLOAT:
        nodes.append(ir.node("Cast", [chunk], {"to": ir.DataType.FLOAT}, name=f"{stem}.Cast"))
        wide = nodes[-1].outputs[0]
        wide.name = f"{stem}.wide"
    nodes.append(ir.node("Gemm", [hidden, wide], {"transB": 1}, name=f"{stem}.Gemm"))
    product = nodes[-1].outputs[0]
    product.name = f"{stem}.product"
    product.type = ir.TensorType(ir.DataType.FLOAT)
    product.shape = ir.Shape([None, rows])
    return ir.Graph([chunk], [product], nodes=nodes, name=f"{stem}.body")
