"""Planned: an export of which nothing is written yet, its graph and where its weights are from."""

from dataclasses import dataclass

import onnx_ir as ir
import torch

from gptoss_onnx.choices import KvDtype
from gptoss_onnx.exporter.assembled import assemble, assembled_parameters
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.cut import keep_stage
from gptoss_onnx.exporter.expert_errors import ExpertErrors
from gptoss_onnx.exporter.int8_projections import convert_projections, keep_q8_projections
from gptoss_onnx.exporter.mxfp4_experts import quantize_experts
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.exporter.ort.lower import lower_to_ort
from gptoss_onnx.exporter.packed_projections import pack_projections
from gptoss_onnx.exporter.replicate import replicate
from gptoss_onnx.exporter.separate_experts import separate_experts, separate_parameters
from gptoss_onnx.exporter.shorten import plan_of, shorten
from gptoss_onnx.exporter.standard_ops import in_standard_ops
from gptoss_onnx.exporter.tidy import tidy
from gptoss_onnx.exporter.trace import attach_bodies, trace
from gptoss_onnx.exporter.weights import Placement, attach_weights, name_weights, plan_placement
from gptoss_onnx.manifest import Stage, TensorError
from gptoss_onnx.package import EXPERTS_FILE
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint, Decoder
from gptoss_onnx.reference.experts_int4 import EXPERTS_INT4

_ALIGNMENT = 64  # bytes, of the first tensor: where shapes allow it, rows begin with a cache line
CUDA_LOSS = "activations of attention and experts in bfloat16"


@dataclass(frozen=True)
class Planned:
    """What an export will write.

    Attributes:
        graph: every weight of it is a byte range of a file that will be in the package.
        placement: where the checkpoint's own files will lie; None if the graph reads nothing of
            them.
        files: those that are computed.
        lossy: what is lost on the way, as the manifest says it.
        exact: no weight is rounded.
        errors: of experts in MXFP4; what rounding them loses is known when they are computed.
    """

    graph: ir.Model
    placement: Placement | None
    files: tuple[ComputedFile, ...]
    lossy: tuple[str, ...]
    exact: bool
    errors: ExpertErrors | None = None

    @property
    def measured(self) -> tuple[TensorError, ...]:
        """What each tensor in MXFP4 loses, of those that have been computed."""
        return () if self.errors is None else self.errors.found


def plan_export(
    checkpoint: Checkpoint, options: ExportOptions, progress: Progress, stage: Stage | None = None
) -> Planned:
    """Return what an export of `checkpoint` with these options writes. Reads no weight byte, but
    for `--dense packed`, whose size depends on the weights that it packs.

    With a `stage` it writes these layers alone. Raises InputError where the options cannot do it
    for this checkpoint.
    """
    graph = _trace(checkpoint, options.kv_dtype, progress, stage)
    if options.target == "ort":
        return _plan_ort(checkpoint, options, graph)
    return _plan_portable(checkpoint, options, graph, progress)


def _plan_portable(
    checkpoint: Checkpoint, options: ExportOptions, graph: ir.Model, progress: Progress
) -> Planned:
    errors, files = _quantize_experts(checkpoint, options, graph)
    quantized = checkpoint.named.keys() - graph.graph.initializers.keys() if files else ()
    separate = separate_parameters(checkpoint) - frozenset(quantized)
    assembled = assembled_parameters(checkpoint, options.weights, separate, frozenset(quantized))
    separate -= assembled  # where all are written anew, they are stacked
    elsewhere = assembled | (checkpoint.named.keys() - graph.graph.initializers.keys())
    placement = plan_placement(checkpoint, options.weights, elsewhere)
    parts = separate_experts(graph, checkpoint, placement, separate)
    rounded = _lossy_weights(checkpoint)
    if options.dense == "int8":
        done, file = convert_projections(graph, checkpoint)
        rounded, files = rounded + done, (*files, file)
    else:
        files = (*files, *keep_q8_projections(graph, checkpoint))
    if options.dense == "packed":
        files = (*files, pack_projections(graph, checkpoint, progress))
    files = assemble(graph, checkpoint, assembled, parts) + files
    attach_weights(graph, checkpoint, placement)
    if options.target == "openvino":
        in_standard_ops(graph)
    lossy = _lossy_cache(options.kv_dtype) + rounded
    return Planned(graph, placement, files, lossy, exact=not rounded, errors=errors)


def _quantize_experts(
    checkpoint: Checkpoint, options: ExportOptions, graph: ir.Model
) -> tuple[ExpertErrors | None, tuple[ComputedFile, ...]]:
    """Rewrite the graph if experts are to be MXFP4; returns the file that is to hold them."""
    if options.experts != "mxfp4":
        return None, ()
    weights, errors = ComputedWeights(), ExpertErrors()
    quantize_experts(graph, checkpoint, weights, errors)
    file = weights.lay_out(
        EXPERTS_FILE,
        what="the MXFP4 experts",
        doing="quantizing the experts to MXFP4",
        alignment=_ALIGNMENT,
    )
    attach_bodies(graph)
    return errors, (file,)


def _plan_ort(checkpoint: Checkpoint, options: ExportOptions, graph: ir.Model) -> Planned:
    errors = ExpertErrors() if options.experts == "mxfp4" else None
    placement, files = lower_to_ort(graph, checkpoint, options, errors)
    lossy = _lossy_cache(options.kv_dtype) + (() if options.provider == "cpu" else (CUDA_LOSS,))
    rounded = _lossy_weights(checkpoint)
    rounded += (EXPERTS_INT4,) if options.experts == "int4" else ()
    return Planned(graph, placement, files, lossy + rounded, exact=not rounded, errors=errors)


def _trace(
    checkpoint: Checkpoint, kv_dtype: KvDtype, progress: Progress, stage: Stage | None
) -> ir.Model:
    """Return the graph of all layers, or of those of a stage, from a trace of those that are not
    alike.
    """
    reference = Decoder.from_checkpoint(checkpoint, device="meta")
    plan = plan_of(reference)
    progress.begin(f"tracing {len(plan.traced)} of {len(plan.patterns)} layers")
    shorten(reference, plan)
    kept = frozenset(reference.state_dict()) | frozenset(reference.constants)
    graph = replicate(tidy(trace(reference, getattr(torch, kv_dtype)), kept), plan)
    if stage is not None:
        keep_stage(graph, stage, checkpoint.config.hidden_size)
    name_weights(graph, checkpoint)
    return graph


def _lossy_cache(kv_dtype: KvDtype) -> tuple[str, ...]:
    return () if kv_dtype == "float32" else (f"kv cache in {kv_dtype}",)


def _lossy_weights(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return what is lost of weights before any option rounds them."""
    computed = (parameter.computed for parameter in checkpoint.parameters.values())
    losses = (entry.loss for entry in computed if entry is not None)
    return tuple(dict.fromkeys(loss for loss in losses if loss is not None))
