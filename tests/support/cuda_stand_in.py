"""A package exported for CUDA, rewritten so that the CPU can run it: what its weights and its
wiring compute.

Each QMoE on MXFP4 becomes MoE on float32 weights, decoded as `QMoEDequantizeFp4WeightsKernel` of
ONNX Runtime does: value (n, k) of an expert is nibble n mod 2 of byte (k, n div 2), times 2^(scale
(n, k div 32) − 127), times the expert's global scale. Attention runs in float32, on caches of
float32. The Casts to bfloat16 either round, or are dropped.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from gptoss_onnx.exporter import Package
from gptoss_onnx.files import header_sha256, safetensors_header
from gptoss_onnx.manifest import WeightFile
from gptoss_onnx.offered import not_offered
from gptoss_onnx.package import ORT_WEIGHTS

DECODED = "decoded.safetensors"

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
OF_FP4 = ("expert_weight_bits", "quant_type", "block_size")
FLOAT, BFLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16


def decode_by_column(weight: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the values (…, N, K) of codes (…, K, N/2) and E8M0 scales (…, N, K/32)."""
    # (…, K, N)
    codes = np.stack((weight & 15, weight >> 4), axis=-1).reshape(*weight.shape[:-1], -1)
    factors = np.ldexp(np.float32(1), scales.astype(np.int32) - 127).repeat(32, axis=-1)
    return E2M1[codes].swapaxes(-1, -2) * factors.astype(np.float32)


def stand_in(package: Package, folder: Path, rounds: bool) -> Path:
    """Write the rewritten package to `folder`; returns it."""
    shutil.copytree(package.folder, folder)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    stored = load_file(folder / ORT_WEIGHTS)
    decoded: dict[str, NDArray[np.float32]] = {}
    for node in model.graph.node:
        if node.op_type == "QMoE":
            decoded |= _decode_experts(model.graph, node, stored)
    file = _write_weights(model.graph, decoded, folder / DECODED)
    casts = [
        node
        for node in model.graph.node
        if node.op_type == "Cast" and node.attribute[0].i == BFLOAT16
    ]
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
    weights = dataclasses.replace(
        package.manifest.weights, files=(*package.manifest.weights.files, file)
    )
    unsupported = not_offered("ort", "cpu", "1.28", "int8")
    manifest = dataclasses.replace(
        package.manifest,
        kv_dtype="float32",
        unsupported=unsupported,
        weights=weights,
        options=None,
    )
    manifest.write(folder)
    return folder


def _write_weights(
    graph: onnx.GraphProto, tensors: dict[str, NDArray[np.float32]], path: Path
) -> WeightFile:
    """Write the tensors to a safetensors file, as external data of the graph; returns its entry in
    the manifest.
    """
    save_file(tensors, path)
    header = safetensors_header(path)
    for name, entry in json.loads(header).items():
        begin, end = entry["data_offsets"]
        tensor = graph.initializer.add(
            name=name, data_type=FLOAT, dims=entry["shape"], data_location=onnx.TensorProto.EXTERNAL
        )
        for key, value in (
            ("location", path.name),
            ("offset", 8 + len(header) + begin),
            ("length", end - begin),
        ):
            tensor.external_data.add(key=key, value=str(value))
    status = path.stat()
    return WeightFile(
        path.name, "export", status.st_size, status.st_mtime_ns, header_sha256(path), None
    )


def _decode_experts(
    graph: onnx.GraphProto, node: onnx.NodeProto, stored: dict[str, NDArray[np.uint8]]
) -> dict[str, NDArray[np.float32]]:
    """Let a node run on float32 weights, and return these by their names."""
    inputs = list(node.input)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    weights: dict[str, NDArray[np.float32]] = {}
    for weight, scales, overall in ((2, 3, 15), (5, 6, 16)):
        factor = onnx.numpy_helper.to_array(constants[inputs[overall]])  # (E)
        decoded = (
            decode_by_column(stored[inputs[weight]], stored[inputs[scales]]) * factor[:, None, None]
        )
        weights[f"{inputs[weight]}_decoded"] = np.ascontiguousarray(decoded)
    node.op_type = "MoE"
    gate_up, down = weights
    node.input[:] = [*inputs[:2], gate_up, inputs[4], down, inputs[7]]
    kept = [attribute for attribute in node.attribute if attribute.name not in OF_FP4]
    del node.attribute[:]
    node.attribute.extend(kept)
    return weights


def _round(graph: onnx.GraphProto, cast: onnx.NodeProto) -> None:
    """Widen again what `cast` has made narrow."""
    name = cast.output[0]
    cast.output[0] = f"{name}_narrow"
    wide = onnx.helper.make_node("Cast", [cast.output[0]], [name], f"{cast.name}_wide", to=FLOAT)
    graph.node.insert(list(graph.node).index(cast) + 1, wide)
