"""Graph pass of the ort target: experts become QMoE on 8-bit or 4-bit integers or MXFP4, or MoE on
float32.

Matches every MoEDispatchMXFP4. QMoE of ONNX Runtime 1.32 multiplies its weights on the CPU as they
lie in the checkpoint, and on CUDA in another order; for older versions 8-bit integers in blocks of
32 hold them exactly. Matches every MoEDispatch too, whose weights are widened to
float32 and put in the one order that MoE knows on the CPU: (E, out, in), gate and up interleaved.
Both ops of ONNX Runtime choose the experts themselves and give ties to the higher index; ours go to
the lower. So the graph chooses first, by TopK, and hands them logits that are −∞ but for the
chosen: their choice has then no tie to break that matters, and their softmax over the chosen is
ours. Where shares are those of a softmax over all experts, the result is multiplied by what the
chosen have of it. Leaves alone: the router.
"""

import math
from typing import Literal

import numpy as np
import onnx_ir as ir

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.mxfp4 import BLOCK
from gptoss_onnx.exporter.nodes import CONTRIB, constant, interleave_biases, make_node, replace
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.exporter.ort.refused import ACTIVATIONS
from gptoss_onnx.exporter.ort.weights import OrtWeights

OPS = ("MoEDispatch", "MoEDispatchMXFP4")
FP4 = {"expert_weight_bits": 4, "quant_type": "fp4", "block_size": BLOCK}
_OMITTED_BEFORE_GLOBAL_SCALES = 7  # fc3 with scales and bias, three zero points, router_weights


def lower_experts(model: ir.Model, weights: OrtWeights, options: ExportOptions) -> None:
    """Replace every mixture of experts of `model` in place; the weights are added to `weights`."""
    for node in [node for node in model.graph if node.domain == DOMAIN and node.op_type in OPS]:
        chosen = _choose(model.graph, node)
        if options.provider == "cuda":
            chosen += _shift(model.graph, node, chosen[-1])
        if node.op_type == "MoEDispatch":
            lowered = _moe(model.graph, node, chosen[-1], weights)
        elif options.provider == "cuda":
            lowered = _qmoe_by_column(model.graph, node, chosen[-1], weights)
        elif options.experts in ("checkpoint", "mxfp4"):
            lowered = _qmoe_as_stored(node, chosen[-1])
        else:
            bits: Literal[4, 8] = 4 if options.experts == "int4" else 8
            lowered = _qmoe(model.graph, node, chosen[-1], weights, bits)
        shared = _share(model.graph, node, chosen[0], lowered[-1]) if _is_over_all(node) else []
        replace(model.graph, node, [*chosen, *lowered, *shared])


def _choose(graph: ir.Graph, old: ir.Node) -> list[ir.Node]:
    """Return nodes, the last of which gives the router's logits (N, E) of the chosen experts and −∞
    elsewhere.
    """
    logits = old.inputs[1]
    count = constant(graph, "experts.top_k", np.array([old.attributes["top_k"].as_int()], np.int64))
    nothing = constant(graph, "experts.not_chosen", np.array(-np.inf, np.float32))
    top = make_node(old, "TopK", [logits, count], outputs=2)
    shape = make_node(old, "Shape", [logits])
    none = make_node(old, "Expand", [nothing, shape.outputs[0]])
    scattered = [none.outputs[0], top.outputs[1], top.outputs[0]]
    return [top, shape, none, make_node(old, "ScatterElements", scattered, {"axis": 1})]


def _shift(graph: ir.Graph, old: ir.Node, routed: ir.Node) -> list[ir.Node]:
    """Return nodes, the last of which gives logits less their largest, for the sake of bfloat16.

    Softmax does not notice, and what decides it, small differences from the largest, is what
    bfloat16 then holds best.
    """
    axis = constant(graph, "experts.axis", np.array([1], np.int64))
    largest = make_node(old, "ReduceMax", [routed.outputs[0], axis])
    return [largest, make_node(old, "Sub", [routed.outputs[0], largest.outputs[0]])]


def _qmoe(
    graph: ir.Graph, old: ir.Node, routed: ir.Node, weights: OrtWeights, bits: Literal[4, 8]
) -> list[ir.Node]:
    hidden, _, gate_up_blocks, _, gate_up_bias, down_blocks, _, down_bias = old.inputs
    convert = weights.mxfp4_uint8 if bits == 8 else weights.mxfp4_int4
    gate_up, gate_up_scales = convert(graph, _stem(gate_up_blocks))
    down, down_scales = convert(graph, _stem(down_blocks))
    operands = [hidden, routed.outputs[0], gate_up, gate_up_scales, gate_up_bias]
    operands += [down, down_scales, down_bias]
    attributes = _attributes(old) | {"expert_weight_bits": bits, "block_size": BLOCK}
    return [make_node(old, "QMoE", operands, attributes, domain=CONTRIB)]


def _qmoe_as_stored(old: ir.Node, routed: ir.Node) -> list[ir.Node]:
    """Return QMoE on the checkpoint's own bytes: uint8 (E, rows, columns/2), two columns a byte.

    `weights_prepacked` 1 says so to ONNX Runtime on the CPU. Its documents do not: that is why
    `runtime.expert_check` compares results.
    """
    hidden, _, gate_up_blocks, gate_up_scales, gate_up_bias, down_blocks, down_scales, down_bias = (
        *old.inputs,
        None,  # down_bias, of experts that have none
    )[:8]
    for blocks in (gate_up_blocks, down_blocks):
        assert blocks is not None
        assert blocks.shape is not None
        experts, rows, count, width = blocks.shape.numpy()
        blocks.shape = ir.Shape((experts, rows, count * width))
    _name_scales(gate_up_scales, down_scales)
    operands = [hidden, routed.outputs[0], gate_up_blocks, gate_up_scales, gate_up_bias]
    operands += [down_blocks, down_scales, down_bias]
    attributes = _attributes(old) | FP4 | {"weights_prepacked": 1}
    return [make_node(old, "QMoE", operands, attributes, domain=CONTRIB)]


def _name_scales(*scales: ir.Value | None) -> None:
    """Give the checkpoint's scales, which are bytes, their proper element type."""
    for value in scales:
        assert value is not None
        value.type = ir.TensorType(ir.DataType.FLOAT8E8M0)


def _qmoe_by_column(
    graph: ir.Graph, old: ir.Node, routed: ir.Node, weights: OrtWeights
) -> list[ir.Node]:
    """Return QMoE as CUDA takes it."""
    hidden, _, gate_up_blocks, gate_up_scales, gate_up_bias, down_blocks, down_scales, down_bias = (
        old.inputs
    )
    gate_up, down = (
        weights.mxfp4_by_column(graph, _name(value)) for value in (gate_up_blocks, down_blocks)
    )
    _name_scales(gate_up_scales, down_scales)
    assert gate_up.shape is not None
    ones = constant(graph, "experts.global_scale", np.ones(gate_up.shape.numpy()[0], np.float32))
    operands = [hidden, routed.outputs[0], gate_up, gate_up_scales, gate_up_bias]
    operands += [down, down_scales, down_bias]
    operands += [*[None] * _OMITTED_BEFORE_GLOBAL_SCALES, ones, ones]
    return [make_node(old, "QMoE", operands, _attributes(old) | FP4, domain=CONTRIB)]


def _moe(graph: ir.Graph, old: ir.Node, routed: ir.Node, weights: OrtWeights) -> list[ir.Node]:
    hidden, _, gate_up, gate_up_bias, down, down_bias, *_ = *old.inputs, None
    assert gate_up is not None
    assert down is not None
    as_rows = "transposed" in old.attributes
    in_halves = "interleaved" in old.attributes and _activation(old) == "swiglu"
    reorder: list[ir.Node] = []
    if in_halves:
        assert as_rows
        rows = weights.interleaved_float32(graph, gate_up)
        if gate_up_bias is not None:
            reorder = interleave_biases(graph, old, gate_up_bias)
            gate_up_bias = reorder[-1].outputs[0]
    else:
        rows = (weights.float32 if as_rows else weights.transposed_float32)(graph, gate_up)
    columns = (weights.float32 if as_rows else weights.transposed_float32)(graph, down)
    operands = [hidden, routed.outputs[0], rows, gate_up_bias, columns, down_bias]
    return [*reorder, make_node(old, "MoE", operands, _attributes(old), domain=CONTRIB)]


def _share(graph: ir.Graph, old: ir.Node, top: ir.Node, lowered: ir.Node) -> list[ir.Node]:
    """Return nodes, the last of which gives the result times what the chosen experts have of the
    softmax over all, (N, 1).
    """
    axis = constant(graph, "experts.axis", np.array([1], np.int64))
    all_shares = make_node(old, "Softmax", [old.inputs[1]])
    shares = make_node(old, "GatherElements", [all_shares.outputs[0], top.outputs[1]], {"axis": 1})
    chosen = make_node(old, "ReduceSum", [shares.outputs[0], axis])
    return [all_shares, shares, chosen, make_node(old, "Mul", [*lowered.outputs, *chosen.outputs])]


def _attributes(old: ir.Node) -> dict[str, int | float | str]:
    """Return the attributes that QMoE and MoE share, of gate and up on interleaved rows."""
    activation = _activation(old)
    attributes: dict[str, int | float | str] = {
        "k": old.attributes["top_k"].as_int(),
        "activation_type": ACTIVATIONS[activation],
    }
    if activation == "swiglu":
        beta = old.attributes["beta"].as_float() if "beta" in old.attributes else 1.0
        attributes |= {
            "swiglu_fusion": 1,  # gate and up interleaved
            "activation_alpha": old.attributes["alpha"].as_float(),
            "activation_beta": beta,  # up + beta
        }
        limit = old.attributes["limit"].as_float()
        attributes |= {"swiglu_limit": limit} if math.isfinite(limit) else {}
    return attributes | {"normalize_routing_weights": 1}  # softmax over the chosen alone


def _activation(old: ir.Node) -> str:
    return old.attributes["activation"].as_string() if "activation" in old.attributes else "swiglu"


def _is_over_all(old: ir.Node) -> bool:
    return "normalize" in old.attributes  # which states it only where it is 0


def _name(value: ir.Value | None) -> str:
    assert value is not None
    assert value.name is not None
    return value.name


def _stem(blocks: ir.Value | None) -> str:
    return _name(blocks).removesuffix("_blocks")
