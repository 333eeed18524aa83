"""Graph pass of the ort target: experts become QMoE on 8-bit or 4-bit integers or MXFP4, or MoE on
float32.

Matches every MoEDispatchMXFP4, whose weights 8-bit integers in blocks of 32 hold exactly and QMoE
on CUDA takes as they are, in another order, and every MoEDispatch, whose weights are widened to
float32 and transposed. Both ops of ONNX Runtime choose the experts themselves and give ties to the
higher index; ours go to the lower. So the graph chooses first, by TopK, and hands them logits that
are −∞ but for the chosen: their choice has then no tie to break that matters, and their softmax
over the chosen is ours. Leaves alone: the router and the biases.
"""

from typing import Literal

import numpy as np
import onnx_ir as ir

from gptoss_onnx.choices import ExpertForm, Provider
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.mxfp4 import BLOCK
from gptoss_onnx.exporter.nodes import CONTRIB, constant, make_node, replace
from gptoss_onnx.exporter.ort.weights import OrtWeights

OPS = ("MoEDispatch", "MoEDispatchMXFP4")
_OMITTED_BEFORE_GLOBAL_SCALES = 7  # fc3 with scales and bias, three zero points, router_weights


def lower_experts(
    model: ir.Model, weights: OrtWeights, provider: Provider, experts: ExpertForm
) -> None:
    """Replace every mixture of experts of `model` in place; the weights are added to `weights`."""
    for node in [node for node in model.graph if node.domain == DOMAIN and node.op_type in OPS]:
        chosen = _choose(model.graph, node)
        if provider == "cuda":
            chosen += _shift(model.graph, node, chosen[-1])
        if node.op_type == "MoEDispatch":
            lowered = _moe(model.graph, node, chosen[-1], weights)
        elif provider == "cuda":
            lowered = _qmoe_mxfp4(model.graph, node, chosen[-1], weights)
        else:
            lowered = _qmoe(model.graph, node, chosen[-1], weights, 4 if experts == "int4" else 8)
        replace(model.graph, node, [*chosen, lowered])


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
) -> ir.Node:
    hidden, _, gate_up_blocks, _, gate_up_bias, down_blocks, _, down_bias = old.inputs
    convert = weights.mxfp4_uint8 if bits == 8 else weights.mxfp4_int4
    gate_up, gate_up_scales = convert(graph, _stem(gate_up_blocks))
    down, down_scales = convert(graph, _stem(down_blocks))
    operands = [gate_up, gate_up_scales, gate_up_bias, down, down_scales, down_bias]
    attributes = _attributes(old) | {"expert_weight_bits": bits, "block_size": BLOCK}
    return make_node(
        old, "QMoE", [hidden, routed.outputs[0], *operands], attributes, domain=CONTRIB
    )


def _qmoe_mxfp4(graph: ir.Graph, old: ir.Node, routed: ir.Node, weights: OrtWeights) -> ir.Node:
    hidden, _, gate_up_blocks, gate_up_scales, gate_up_bias, down_blocks, down_scales, down_bias = (
        old.inputs
    )
    gate_up, down = (
        weights.mxfp4_by_column(graph, _name(value)) for value in (gate_up_blocks, down_blocks)
    )
    for scales in (gate_up_scales, down_scales):  # the checkpoint's bytes, under their proper name
        assert scales is not None
        scales.type = ir.TensorType(ir.DataType.FLOAT8E8M0)
    assert gate_up.shape is not None
    ones = constant(graph, "experts.global_scale", np.ones(gate_up.shape.numpy()[0], np.float32))
    operands = [gate_up, gate_up_scales, gate_up_bias, down, down_scales, down_bias]
    operands += [*[None] * _OMITTED_BEFORE_GLOBAL_SCALES, ones, ones]
    attributes = _attributes(old) | {
        "expert_weight_bits": 4,
        "quant_type": "fp4",
        "block_size": BLOCK,
    }
    return make_node(
        old, "QMoE", [hidden, routed.outputs[0], *operands], attributes, domain=CONTRIB
    )


def _moe(graph: ir.Graph, old: ir.Node, routed: ir.Node, weights: OrtWeights) -> ir.Node:
    hidden, _, gate_up, gate_up_bias, down, down_bias = old.inputs
    rows, columns = (weights.transposed_float32(graph, _name(value)) for value in (gate_up, down))
    operands = [rows, gate_up_bias, columns, down_bias]
    return make_node(
        old, "MoE", [hidden, routed.outputs[0], *operands], _attributes(old), domain=CONTRIB
    )


def _attributes(old: ir.Node) -> dict[str, int | float | str]:
    """Return the attributes that QMoE and MoE share: gpt-oss's clamped SwiGLU on interleaved
    rows.
    """
    return {
        "k": old.attributes["top_k"].as_int(),
        "activation_type": "swiglu",
        "swiglu_fusion": 1,  # gate and up interleaved
        "activation_alpha": old.attributes["alpha"].as_float(),
        "activation_beta": 1.0,  # up + 1
        "swiglu_limit": old.attributes["limit"].as_float(),
        "normalize_routing_weights": 1,  # softmax over the chosen alone
    }


def _name(value: ir.Value | None) -> str:
    assert value is not None
    assert value.name is not None
    return value.name


def _stem(blocks: ir.Value | None) -> str:
    return _name(blocks).removesuffix("_blocks")
