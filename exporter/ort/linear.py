"""Graph pass of the ort target: projections become Gemm on float32 weights, or on the stored ones a
few rows at a time.

Matches every Linear. ONNX Runtime's CPU provider has no matrix product in bfloat16, and a Cast of a
weight would be folded into a copy in anonymous memory. So the weight is widened to float32, in a
file of the package's own, which loses nothing. With `--dense checkpoint` a Scan runs over chunks of
the weight as the checkpoint has it: its body casts a chunk to float32 and multiplies with that.
What a Scan runs over is no constant to ONNX Runtime, which neither folds the Cast nor packs the
weight; but its threads are woken for every chunk (docs/adr/0014). Two are widened even then: a
transposed weight (K, M), whose rows are no outputs, and one with a number of rows that has no fit
divisor. Leaves alone: the bias, which the graph casts already.

Legend: N tokens, K input width, M output width, C chunks of R rows each.
"""

import numpy as np
import onnx_ir as ir

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.exporter.nodes import constant, make_node, replace
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.exporter.ort.weights import OrtWeights

CHUNK = 4 << 20  # bytes of float32, the best of 1 to 16 MiB: docs/adr/0014


def lower_linear(model: ir.Model, weights: OrtWeights, options: ExportOptions) -> None:
    """Replace every Linear of `model` in place; the weights are added to `weights`."""
    in_chunks = options.provider == "cpu" and options.dense != "float32"
    for node in [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, "Linear")]:
        hidden, weight, *bias = node.inputs
        assert weight is not None
        assert weight.shape is not None
        transposed = node.attributes.get_int("transposed", 0) == 1
        rows, columns = weight.shape.numpy()
        size = chunk_rows(rows, columns) if in_chunks and not transposed else None
        if size is None:
            wide = weights.float32(model.graph, weight)
            attributes = {} if transposed else {"transB": 1}
            new = [make_node(node, "Gemm", [hidden, wide, *bias], attributes)]
        else:
            new = _in_chunks(model.graph, node, weights.chunks(model.graph, weight, size))
        replace(model.graph, node, new)


def chunk_rows(rows: int, columns: int) -> int | None:
    """Return how many rows of a weight (M, K) are cast at a time, all of them if they fit.

    M is a multiple of it: a graph reads nothing but whole tensors of a file, so there is no smaller
    last chunk. None where M has no fit divisor, as a large prime has none.
    """
    if rows * columns * 4 <= CHUNK:
        return rows
    sizes = [size for size in range(1, rows + 1) if rows % size == 0]
    fit = [size for size in sizes if CHUNK // 8 <= size * columns * 4 <= CHUNK]
    large = [size for size in sizes if CHUNK < size * columns * 4 <= 16 * CHUNK]
    return max(fit) if fit else min(large, default=None)


def _in_chunks(graph: ir.Graph, old: ir.Node, chunks: ir.Value) -> list[ir.Node]:
    """Return nodes, the last of which gives hidden · chunksᵀ + bias, (N, M)."""
    attributes = {
        "body": _body(old, chunks),
        "num_scan_inputs": 1,
        "scan_output_axes": [1],
    }
    scan = make_node(old, "Scan", [chunks], attributes)  # (N, C, R)
    flat = constant(graph, "linear.flat", np.array([0, -1], np.int64))
    new = [scan, make_node(old, "Reshape", [scan.outputs[0], flat], suffix=".flat")]
    for bias in old.inputs[2:]:
        if bias is not None:
            new.append(make_node(old, "Add", [new[-1].outputs[0], bias], suffix=".bias"))
    return new


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
