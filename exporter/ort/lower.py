"""The ort target: a pass over the traced graph, from `ai.gptoss` ops to ops that every build of
ONNX Runtime has.

Interface, attention, experts and projections are a pass each, in a file of this folder, and
bfloat16 for CUDA is one more. What they leave alone, embedding, norms and biases, keeps the
checkpoint's tensors byte for byte. All weights go into one computed file: the experts of the
checkpoint's files would be dead weight in it.
"""

from pathlib import Path

import onnx_ir as ir

from gptoss_onnx.choices import ExpertForm, Provider
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.exporter.nodes import CONTRIB
from gptoss_onnx.exporter.ort.attention import lower_attention
from gptoss_onnx.exporter.ort.bfloat16 import lower_to_bfloat16
from gptoss_onnx.exporter.ort.experts import lower_experts
from gptoss_onnx.exporter.ort.interface import drop_unused_inputs, lower_interface
from gptoss_onnx.exporter.ort.linear import lower_linear
from gptoss_onnx.exporter.ort.weights import OrtWeights
from gptoss_onnx.package import ORT_WEIGHTS
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.checkpoint import Checkpoint

CONTRIB_VERSION = 1
E8M0_IR_VERSION = 12  # the first of ONNX that has FLOAT8E8M0


def lower_to_ort(
    model: ir.Model,
    checkpoint: Checkpoint,
    folder: Path,
    provider: Provider,
    experts: ExpertForm,
    progress: Progress,
) -> None:
    """Rewrite `model` in place and write its weights into `folder`.

    Args:
        model: the traced graph, with caches in float32 or float16 for `cpu` and in bfloat16 for
            `cuda`.
        checkpoint: where the weights are read.
        folder: the package.
        provider: what the graph is to run on.
        experts: `checkpoint`, in a form that loses nothing, or `int4`, which only `cpu` takes.
        progress: hears how many bytes of weights are written.

    Raises:
        PackageError: there is no room for the weights.
        CheckpointError: a file of the checkpoint has become shorter.
    """
    graph = model.graph
    weights = OrtWeights(checkpoint)
    lengths = lower_interface(model)
    lower_attention(model, lengths)
    lower_experts(model, weights, provider, experts)
    lower_linear(model, weights)
    drop_unused_inputs(model)
    if provider == "cuda":
        lower_to_bfloat16(model)
        model.ir_version = max(model.ir_version, E8M0_IR_VERSION)
    left = sorted({node.op_type for node in graph if node.domain == DOMAIN})
    assert not left, f"not lowered: {left}"
    for name, value in graph.initializers.items():
        if name in checkpoint.named:
            weights.as_stored(name, value)
    model.functions.clear()
    graph.opset_imports.pop(DOMAIN)
    graph.opset_imports[CONTRIB] = CONTRIB_VERSION
    weights.write(folder / ORT_WEIGHTS, progress)
