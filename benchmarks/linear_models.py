"""The models that linear.py times: projections on random weights in one memory-mapped file."""

import mmap
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from gptoss_onnx.custom_ops.linear_packed import pack

BLOCK = 32  # of MatMulNBits
PACKED_PARTS = {
    "low": TensorProto.UINT8,
    "high": TensorProto.UINT8,
    "bases": TensorProto.UINT8,
    "positions": TensorProto.INT32,
    "values": TensorProto.BFLOAT16,
}


def linear_node(copy: int, rows: int, depth: int) -> onnx.NodeProto:
    """Return copy `copy` of a projection by Linear."""
    return helper.make_node("Linear", ["x", f"w{copy}", "bias"], [f"y{copy}"], domain="ai.gptoss")


def gemm_node(copy: int, rows: int, depth: int) -> onnx.NodeProto:
    """Return one by ONNX Runtime's Gemm, in float32."""
    return helper.make_node("Gemm", ["x", f"w{copy}", "bias"], [f"y{copy}"], transB=1)


def nbits_node(copy: int, rows: int, depth: int) -> onnx.NodeProto:
    """Return one by ONNX Runtime's MatMulNBits, with 8-bit weights."""
    sizes = {"K": depth, "N": rows, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    inputs = ["x", f"w{copy}", f"scales{copy}", "", "", "bias"]
    return helper.make_node("MatMulNBits", inputs, [f"y{copy}"], domain="com.microsoft", **sizes)


def int8_node(copy: int, rows: int, depth: int) -> onnx.NodeProto:
    """Return one by LinearInt8."""
    return helper.make_node(
        "LinearInt8", ["x", f"w{copy}", f"scales{copy}", "bias"], [f"y{copy}"], domain="ai.gptoss"
    )


def packed_node(copy: int, rows: int, depth: int) -> onnx.NodeProto:
    """Return one by LinearPacked."""
    inputs = ["x", *(f"{part}{copy}" for part in PACKED_PARTS), "bias"]
    return helper.make_node("LinearPacked", inputs, [f"y{copy}"], domain="ai.gptoss")


class Mapped:
    """A file in memory: where it lies, and its size in bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._view: np.ndarray | None = np.frombuffer(self._map, np.uint8)
        self.address, self.size = self._view.ctypes.data, self._view.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._view = None
        self._map.close()
        self._file.close()


def write_model(
    folder: Path,
    name: str,
    node: Callable[[int, int, int], onnx.NodeProto],
    element: int,
    rows: int,
    depth: int,
    copies: int,
) -> Path:
    """Write `copies` projections of one input, with random weights of `element` type one after the
    other in a file.

    8-bit weights have their scales behind them.
    """
    one = _random_weights(element, rows, depth)
    blocks = rows * depth // BLOCK if element in (TensorProto.UINT8, TensorProto.INT8) else 0
    scales = np.full(blocks, 1e-3, np.float32)
    with (folder / f"{name}.bin").open("wb") as file:
        for copy in range(copies):
            # Equal ones would share what ONNX Runtime makes of them, and be read from a cache.
            one.flat[0] = copy % 100
            one.flat[1] = copy // 100
            file.write(one.tobytes() + scales.tobytes())
    tensors = []
    for copy in range(copies):
        start = copy * (one.nbytes + scales.nbytes)
        nbits = element == TensorProto.UINT8
        dims = [rows, depth // BLOCK, BLOCK] if nbits else [rows, depth]
        tensors.append(_external(f"w{copy}", element, dims, f"{name}.bin", start, one.nbytes))
        if blocks:
            dims = [blocks] if nbits else [rows, depth // BLOCK]
            place = (f"{name}.bin", start + one.nbytes, scales.nbytes)
            tensors.append(_external(f"scales{copy}", TensorProto.FLOAT, dims, *place))
    return _write_graph(folder, name, node, tensors, rows, depth, copies)


def write_packed_model(folder: Path, rows: int, depth: int, copies: int) -> Path:
    """Write the same with the weights of a bfloat16 model packed for LinearPacked."""
    packed = _packed_weights(rows, depth)
    tensors, start = [], 0
    with (folder / "packed.bin").open("wb") as file:
        for copy in range(copies):
            for part, array in packed.items():
                file.write(array.tobytes())
                place = ("packed.bin", start, array.nbytes)
                element, dims = PACKED_PARTS[part], list(array.shape)
                tensors.append(_external(f"{part}{copy}", element, dims, *place))
                start += array.nbytes
    return _write_graph(folder, "packed", packed_node, tensors, rows, depth, copies)


def _write_graph(
    folder: Path,
    name: str,
    node: Callable[[int, int, int], onnx.NodeProto],
    tensors: list[TensorProto],
    rows: int,
    depth: int,
    copies: int,
) -> Path:
    bias = helper.make_tensor(
        "bias", TensorProto.FLOAT, [rows], np.ones(rows, np.float32).tobytes(), raw=True
    )
    graph = helper.make_graph(
        [node(copy, rows, depth) for copy in range(copies)],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", depth])],
        [
            helper.make_tensor_value_info(f"y{copy}", TensorProto.FLOAT, ["N", rows])
            for copy in range(copies)
        ],
        [*tensors, bias],
    )
    domains = {"": 24, "ai.gptoss": 1, "com.microsoft": 1}
    imports = [helper.make_opsetid(domain, opset) for domain, opset in domains.items()]
    path = folder / f"{name}.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=11).SerializeToString()
    )
    return path


def _external(
    name: str, element: int, dims: list[int], location: str, offset: int, length: int
) -> TensorProto:
    tensor = TensorProto(
        name=name, data_type=element, dims=dims, data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _random_weights(element: int, rows: int, depth: int) -> np.ndarray:
    generator = np.random.default_rng(1)
    if element == TensorProto.INT8:
        return generator.integers(-127, 128, (rows, depth), np.int8)
    if element == TensorProto.UINT8:
        return generator.integers(0, 256, (rows, depth), np.uint8)
    values = generator.standard_normal((rows, depth), np.float32)
    if element == TensorProto.BFLOAT16:
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values


def _packed_weights(rows: int, depth: int) -> dict[str, np.ndarray]:
    """Return the parts of the random bfloat16 weights, packed some rows at a time."""
    weight = torch.from_numpy(_random_weights(TensorProto.BFLOAT16, rows, depth).view(np.int16))
    step = max(1, (1 << 22) // depth)
    found: dict[str, list[np.ndarray]] = {part: [] for part in PACKED_PARTS}
    for first in range(0, rows, step):
        packed = pack(weight[first : first + step].view(torch.bfloat16))
        parts = {**asdict(packed), "values": packed.values.view(torch.int16)}
        parts["positions"] = packed.positions + torch.tensor([[first, 0]], dtype=torch.int32)
        for part, arrays in found.items():
            arrays.append(parts[part].numpy())
    return {part: np.concatenate(arrays) for part, arrays in found.items()}
