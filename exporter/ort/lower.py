"""The ort target: a pass over the traced graph, from `ai.gptoss` ops to ops that every build of
ONNX Runtime has.

Interface and attention, experts and projections are a pass each, in `ort_*.py`, and bfloat16 for
CUDA is one more. What they leave alone, embedding, norms and biases, keeps the checkpoint's tensors
byte for byte. All weights go into one file of the package's own: the experts of the checkpoint's
files would be dead weight in it.
"""

from pathlib import Path

import onnx_ir as ir

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter.computed_weights import OwnWeights
from gptoss_onnx.exporter.nodes import CONTRIB
from gptoss_onnx.exporter.options import Experts
from gptoss_onnx.exporter.ort.attention import lower_attention
from gptoss_onnx.exporter.ort.bfloat16 import lower_to_bfloat16
from gptoss_onnx.exporter.ort.experts import lower_experts
from gptoss_onnx.exporter.ort.interface import drop_unused_inputs, lower_interface
from gptoss_onnx.exporter.ort.linear import lower_linear
from gptoss_onnx.manifest import Provider
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.reference.config import DecoderConfig

ORT_WEIGHTS = "weights.safetensors"
CONTRIB_VERSION = 1
IN_BFLOAT16 = ("self_attn.sinks", "experts.gate_up_proj_bias", "experts.down_proj_bias")  # on CUDA
E8M0_IR_VERSION = 12  # the first of ONNX that has FLOAT8E8M0
MXFP4_LAYOUT = "hf-mxfp4"
HEAD_DIM_MULTIPLE = 8  # GroupQueryAttention takes no other


def check_ort_config(config: DecoderConfig) -> None:
    """Refuse a model that the ops of this target cannot compute."""
    head_dim = config.layers[0].attention.head_dim
    if head_dim % HEAD_DIM_MULTIPLE:
        raise InputError(
            f"--target ort: found head_dim {head_dim}, expected a multiple of {HEAD_DIM_MULTIPLE} "
            "(GroupQueryAttention takes no other): export with --target portable"
        )


def check_cuda_checkpoint(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that the ops cannot hold losslessly on CUDA: dense experts, sinks or
    biases in float32.
    """
    if checkpoint.config.layout != MXFP4_LAYOUT:
        raise InputError(
            "--provider cuda: found dense experts, expected MXFP4 (QMoE on CUDA has no other "
            "lossless form): export "
            "with --provider cpu"
        )
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(IN_BFLOAT16) and tensor.dtype != "BF16":
            raise InputError(
                f"--provider cuda: {name}: found {tensor.dtype}, expected BF16 (what attention and "
                "experts compute in "
                "there): export with --provider cpu"
            )


def check_int4_checkpoint(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose experts are no MXFP4."""
    if checkpoint.config.layout != MXFP4_LAYOUT:
        raise InputError(
            "--experts int4: found dense experts, expected MXFP4 (what its rounding is made for): "
            "leave --experts out"
        )


def lower_to_ort(
    model: ir.Model,
    checkpoint: Checkpoint,
    folder: Path,
    provider: Provider,
    experts: Experts,
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
    weights = OwnWeights(checkpoint)
    lengths = lower_interface(model)
    lower_attention(model, lengths.last_positions, lengths.total)
    lower_experts(model, weights, provider, experts)
    lower_linear(model, weights)
    drop_unused_inputs(model)
    if provider == "cuda":
        lower_to_bfloat16(model)
        model.ir_version = max(model.ir_version, E8M0_IR_VERSION)
    left = sorted({node.op_type for node in graph if node.domain == DOMAIN})
    assert not left, f"not lowered: {left}"
    for name, value in graph.initializers.items():
        if name in checkpoint.tensors:
            weights.as_stored(name, value)
    model.functions.clear()
    graph.opset_imports.pop(DOMAIN)
    graph.opset_imports[CONTRIB] = CONTRIB_VERSION
    weights.write(folder / ORT_WEIGHTS, progress)
