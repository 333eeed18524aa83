"""What moe.py compares: layers of random experts, as files of ONNX models and as ggml's tensors,
all from one draw.

Legend: E experts, Hd hidden size, I expert width, G blocks of 32 in a row.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ggml_layer
import ml_dtypes
import numpy as np
import onnx
import transformers_layer
from numpy.typing import NDArray
from onnx import TensorProto, helper

HIDDEN, WIDTH, EXPERTS, TOP_K = 2880, 2880, 32, 4
BLOCK = 32
ALPHA, LIMIT = 1.702, 7.0
SIZES = ggml_layer.Sizes(HIDDEN, WIDTH, EXPERTS, TOP_K, ALPHA, LIMIT)
TWICE_LEVELS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12])
LOWEST_SCALE, SCALES = 118, 2  # E8M0 bytes 118 and 119: weights of about 0.01

Tensors = dict[str, NDArray[np.generic]]


def draw(layer: int) -> Tensors:
    """Return one layer's weights as a checkpoint holds them."""
    random = np.random.default_rng(layer)

    def pair(name: str, outputs: int, inputs: int) -> Tensors:
        shape = (EXPERTS, outputs, inputs // BLOCK)
        blocks = np.frombuffer(random.bytes(int(np.prod(shape)) * BLOCK // 2), np.uint8)
        scales = random.integers(LOWEST_SCALE, LOWEST_SCALE + SCALES, shape, np.uint8)
        return {f"{name}_blocks": blocks.reshape(*shape, BLOCK // 2), f"{name}_scales": scales}

    return {**pair("gate_up", 2 * WIDTH, HIDDEN), **pair("down", HIDDEN, WIDTH)}


def ggml_experts(layers: int, threads: int, repack: bool) -> ggml_layer.Experts:
    """Return the layers in ggml's memory."""

    def convert(weights: Tensors) -> tuple[NDArray[np.uint8], ...]:
        gate_up = ggml_layer.to_ggml(weights["gate_up_blocks"], weights["gate_up_scales"])
        down = ggml_layer.to_ggml(weights["down_blocks"], weights["down_scales"])
        return gate_up[:, 0::2], gate_up[:, 1::2], down

    return ggml_layer.Experts(
        SIZES, (convert(draw(i)) for i in range(layers)), layers, threads, repack
    )


def transformers_experts(layers: int, threads: int) -> transformers_layer.Experts:
    """Return the layers in transformers."""
    return transformers_layer.Experts(
        SIZES, (tuple(draw(i).values()) for i in range(layers)), threads
    )


@dataclass(frozen=True)
class OnnxModel:
    """A kind of model: its node, its weights from a checkpoint's, and what goes into the graph
    itself.
    """

    node: Callable[[int], onnx.NodeProto]
    convert: Callable[[Tensors], Tensors]


def mxfp4_model() -> OnnxModel:
    """Return our op on the weights as they are."""

    def node(i: int) -> onnx.NodeProto:
        names = (
            "gate_up_blocks",
            "gate_up_scales",
            "gate_up_bias",
            "down_blocks",
            "down_scales",
            "down_bias",
        )
        inputs = [
            "hidden",
            f"router{i}",
            *(name if name.endswith("bias") else f"{name}{i}" for name in names),
        ]
        attributes = {"top_k": TOP_K, "alpha": ALPHA, "limit": LIMIT}
        return helper.make_node(
            "MoEDispatchMXFP4", inputs, [f"output{i}"], domain="ai.gptoss", **attributes
        )

    return OnnxModel(node, lambda weights: weights)


def qmoe_fp4_model() -> OnnxModel:
    """Return ONNX Runtime's QMoE on the weights as they are, which 1.32 runs on the CPU."""
    attributes = {"expert_weight_bits": 4, "quant_type": "fp4", "weights_prepacked": 1}

    def convert(weights: Tensors) -> Tensors:
        converted: Tensors = {}
        for name in ("gate_up", "down"):
            blocks, scales = weights[f"{name}_blocks"], weights[f"{name}_scales"]
            converted[name] = blocks.reshape(*blocks.shape[:2], -1)
            converted[f"{name}_steps"] = scales.view(ml_dtypes.float8_e8m0fnu)
        return converted

    return OnnxModel(lambda i: _qmoe(i, attributes), convert)


def _qmoe(i: int, attributes: Mapping[str, Any]) -> onnx.NodeProto:
    inputs = ["hidden", f"router{i}", f"gate_up{i}", f"gate_up_steps{i}", "gate_up_bias"]
    inputs += [f"down{i}", f"down_steps{i}", "down_bias"]
    return helper.make_node(
        "QMoE",
        inputs,
        [f"output{i}"],
        domain="com.microsoft",
        k=TOP_K,
        activation_type="swiglu",
        swiglu_fusion=1,
        activation_alpha=ALPHA,
        activation_beta=1.0,
        swiglu_limit=LIMIT,
        normalize_routing_weights=1,
        block_size=BLOCK,
        **attributes,
    )


def qmoe_model(bits: int) -> OnnxModel:
    """Return ONNX Runtime's QMoE: in 8 bits on the same weights, in 4 on the nearest it can
    hold.
    """
    attributes = {"expert_weight_bits": bits, "accuracy_level": 4}

    def convert(weights: Tensors) -> Tensors:
        converted: Tensors = {}
        for name in ("gate_up", "down"):
            blocks, scales = weights[f"{name}_blocks"], weights[f"{name}_scales"]
            steps = np.exp2(scales.astype(np.float32) - 128)  # of twice the level
            pairs = [(blocks & 15), (blocks >> 4)]
            if bits == 8:
                integers = (TWICE_LEVELS + 128).astype(np.uint8)
                stored = np.stack([integers[pair] for pair in pairs], axis=-1)
            else:
                # −12 … 12 on the integers 0 … 15 around 8, with steps of 12/7.
                nearest = (np.rint(TWICE_LEVELS * 7 / 12) + 8).astype(np.uint8)
                stored = nearest[pairs[0]] | nearest[pairs[1]] << 4
                steps = steps * np.float32(12 / 7)
            converted[name] = stored.reshape(*blocks.shape[:2], -1)
            converted[f"{name}_steps"] = steps
        return converted

    return OnnxModel(lambda i: _qmoe(i, attributes), convert)


def write_model(path: Path, layers: int, kind: OnnxModel) -> Path:
    """Write a graph of `layers` nodes on one input, and their weights in a file beside it; returns
    the graph's path.
    """
    initializers: list[TensorProto] = []
    with path.with_suffix(".bin").open("wb") as file:
        for i in range(layers):
            for name, values in kind.convert(draw(i)).items():
                initializers.append(
                    _external(f"{name}{i}", values, path.with_suffix(".bin").name, file.tell())
                )
                file.write(values.tobytes())
    biases = {
        "gate_up_bias": np.zeros((EXPERTS, 2 * WIDTH), np.float32),
        "down_bias": np.zeros((EXPERTS, HIDDEN), np.float32),
    }
    initializers += [onnx.numpy_helper.from_array(array, name) for name, array in biases.items()]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [kind.node(i) for i in range(layers)],
        path.name,
        [value("hidden", TensorProto.FLOAT, ["N", HIDDEN])]
        + [value(f"router{i}", TensorProto.FLOAT, ["N", EXPERTS]) for i in range(layers)],
        [value(f"output{i}", TensorProto.FLOAT, ["N", HIDDEN]) for i in range(layers)],
        initializers,
    )
    imports = [
        helper.make_opsetid(domain, opset)
        for domain, opset in (("", 24), ("ai.gptoss", 1), ("com.microsoft", 1))
    ]
    model = path.with_suffix(".onnx")
    model.write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=11).SerializeToString()
    )
    return model


def _external(name: str, values: NDArray[np.generic], location: str, offset: int) -> TensorProto:
    element = helper.np_dtype_to_tensor_dtype(values.dtype)
    tensor = TensorProto(
        name=name, data_type=element, dims=values.shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, "offset": offset, "length": values.nbytes}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def expert_ranges() -> Iterator[tuple[int, int]]:
    """Yield offset in a layer of the file of mxfp4_model, and bytes of one expert, of each of its
    tensors.
    """
    offset = 0
    for outputs, inputs in ((2 * WIDTH, HIDDEN), (HIDDEN, WIDTH)):
        for bytes_a_block in (BLOCK // 2, 1):
            count = outputs * inputs // BLOCK * bytes_a_block
            yield offset, count
            offset += EXPERTS * count


EXPERT_BYTES = sum(count for _, count in expert_ranges())
