"""A package exported for CUDA, rewritten so that the CPU can run it: what its weights and its wiring compute.

Each QMoE on MXFP4 becomes MoE on float32 weights, decoded as `QMoEDequantizeFp4WeightsKernel` of ONNX Runtime does:
value (n, k) of an expert is nibble n mod 2 of byte (k, n div 2), times 2^(scale (n, k div 32) − 127), times the
expert's global scale. Attention runs in float32, on caches of float32. The Casts to bfloat16 either round, or are
dropped.
"""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import load_file

from gptoss_onnx.exporter import Package
from gptoss_onnx.exporter.ort_lowering import ORT_WEIGHTS
from gptoss_onnx.manifest import NOT_OFFERED

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
OF_FP4 = ("expert_weight_bits", "quant_type", "block_size")
FLOAT, BFLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16


def decode_by_column(weight: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the values (…, N, K) of codes (…, K, N/2) and E8M0 scales (…, N, K/32)."""
    codes = np.stack((weight & 15, weight >> 4), axis=-1).reshape(*weight.shape[:-1], -1)  # (…, K, N)
    factors = np.ldexp(np.float32(1), scales.astype(np.int32) - 127).repeat(32, axis=-1)
    return E2M1[codes].swapaxes(-1, -2) * factors.astype(np.float32)


def stand_in(package: Package, folder: Path, rounds: bool) -> Path:
    """Write the rewritten package to `folder`; returns it."""
    shutil.copytree(package.folder, folder)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    stored = load_file(folder / ORT_WEIGHTS)
    for node in model.graph.node:
        if node.op_type == "QMoE":
            _decode_experts(model.graph, node, stored)
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.attribute[0].i == BFLOAT16]
    for node in casts:
        if rounds:
            _round(model.graph, node)
        else:
            node.attribute[0].i = FLOAT
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == BFLOAT16:
            value.type.tensor_type.elem_type = FLOAT
    del model.graph.value_info[:]
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    manifest = dataclasses.replace(package.manifest, kv_dtype="float32", unsupported=NOT_OFFERED["ort"])
    manifest.write(folder)
    return folder


def _decode_experts(graph: onnx.GraphProto, node: onnx.NodeProto, stored: dict[str, NDArray[np.uint8]]) -> None:
    inputs = list(node.input)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    weights = []
    for weight, scales, overall in ((2, 3, 15), (5, 6, 16)):
        factor = onnx.numpy_helper.to_array(constants[inputs[overall]])  # (E)
        decoded = decode_by_column(stored[inputs[weight]], stored[inputs[scales]]) * factor[:, None, None]
        name = f"{inputs[weight]}_decoded"
        graph.initializer.append(onnx.numpy_helper.from_array(decoded, name))
        weights.append(name)
    node.op_type = "MoE"
    node.input[:] = [*inputs[:2], weights[0], inputs[4], weights[1], inputs[7]]
    kept = [attribute for attribute in node.attribute if attribute.name not in OF_FP4]
    del node.attribute[:]
    node.attribute.extend(kept)


def _round(graph: onnx.GraphProto, cast: onnx.NodeProto) -> None:
    """Widen again what `cast` has made narrow."""
    name = cast.output[0]
    cast.output[0] = f"{name}_narrow"
    wide = onnx.helper.make_node("Cast", [cast.output[0]], [name], f"{cast.name}_wide", to=FLOAT)
    graph.node.insert(list(graph.node).index(cast) + 1, wide)
