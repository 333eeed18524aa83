"""The ort target: a pass over the traced graph, from `ai.gptoss` ops to ops that every build of
ONNX Runtime has.

Interface, attention, experts and projections are a pass each, in a file of this folder, and
bfloat16 for CUDA is one more. What they leave as it is keeps the checkpoint's tensors byte for
byte: embedding, norms and biases, experts that ONNX Runtime multiplies as MXFP4, and projections
that it casts in chunks. All others go into one computed file. With `--weights link` those kept are
byte ranges of the checkpoint's files, otherwise they are in that file too.
"""

import onnx_ir as ir

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.expert_errors import ExpertErrors
from gptoss_onnx.exporter.mxfp4_experts import quantize_experts
from gptoss_onnx.exporter.nodes import CONTRIB
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.exporter.ort.attention import lower_attention
from gptoss_onnx.exporter.ort.bfloat16 import lower_to_bfloat16
from gptoss_onnx.exporter.ort.experts import lower_experts
from gptoss_onnx.exporter.ort.interface import drop_unused_inputs, lower_interface
from gptoss_onnx.exporter.ort.linear import lower_linear
from gptoss_onnx.exporter.ort.weights import OrtWeights
from gptoss_onnx.exporter.weights import Placement, attach_weights, plan_placement
from gptoss_onnx.package import ORT_WEIGHTS
from gptoss_onnx.reference.checkpoint import Checkpoint

CONTRIB_VERSION = 1
E8M0_IR_VERSION = 12  # the first of ONNX that has FLOAT8E8M0


def lower_to_ort(
    model: ir.Model,
    checkpoint: Checkpoint,
    options: ExportOptions,
    errors: ExpertErrors | None = None,
) -> tuple[Placement | None, tuple[ComputedFile, ...]]:
    """Rewrite `model` in place.

    Returns where the checkpoint's own files are to lie, None if the graph reads nothing of them,
    and the files that are to be computed.

    Args:
        model: the traced graph, with caches in float32 or float16 for `cpu` and in bfloat16 for
            `cuda`.
        checkpoint: where the weights are read.
        options: of the export; those of the weights, of the provider and of the experts count here.
        errors: get those of experts that are quantized to MXFP4, if they are, while these are
            computed.
    """
    graph = model.graph
    weights = OrtWeights(checkpoint)
    lengths = lower_interface(model, by_row=options.onnxruntime != "1.28")
    lower_attention(model, lengths)
    if errors is not None:
        quantize_experts(model, checkpoint, weights.computed, errors)
    lower_experts(model, weights, options)
    lower_linear(model, weights, options)
    drop_unused_inputs(model)
    if options.provider == "cuda":
        lower_to_bfloat16(model)
    if any(value.dtype == ir.DataType.FLOAT8E8M0 for value in graph.initializers.values()):
        model.ir_version = max(model.ir_version, E8M0_IR_VERSION)
    left = sorted({node.op_type for node in graph if node.domain == DOMAIN})
    assert not left, f"not lowered: {left}"
    model.functions.clear()
    graph.opset_imports.pop(DOMAIN)
    graph.opset_imports[CONTRIB] = CONTRIB_VERSION
    kept = {name for name in graph.initializers if name in checkpoint.named} | weights.chunked
    linked = {name for name in kept if checkpoint.named[name].view is not None}
    linked &= kept if options.weights == "link" and checkpoint.linkable else set()
    for name in sorted(kept - linked):
        weights.as_stored(name, graph.initializers.get(name))
    placement = None
    if linked:
        others = frozenset(checkpoint.named.keys() - linked)
        placement = plan_placement(checkpoint, options.weights, others)
    files = weights.lay_out(ORT_WEIGHTS)
    weights.attach_chunks(placement)
    if placement is not None:
        attach_weights(model, checkpoint, placement)
    return placement, files
