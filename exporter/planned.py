"""Planned: an export of which nothing is written yet, its graph and where its weights are from."""

from dataclasses import dataclass

import onnx_ir as ir
import torch

from gptoss_onnx.choices import KvDtype
from gptoss_onnx.exporter.assembled import assemble, assembled_parameters
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.cut import keep_stage
from gptoss_onnx.exporter.int8_projections import convert_projections
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.exporter.ort.lower import lower_to_ort
from gptoss_onnx.exporter.packed_projections import pack_projections
from gptoss_onnx.exporter.replicate import replicate
from gptoss_onnx.exporter.separate_experts import separate_experts, separate_parameters
from gptoss_onnx.exporter.shorten import plan_of, shorten
from gptoss_onnx.exporter.tidy import tidy
from gptoss_onnx.exporter.trace import trace
from gptoss_onnx.exporter.weights import Placement, attach_weights, name_weights, plan_placement
from gptoss_onnx.manifest import Stage
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint, Decoder
from gptoss_onnx.reference.experts_int4 import EXPERTS_INT4

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
    """

    graph: ir.Model
    placement: Placement | None
    files: tuple[ComputedFile, ...]
    lossy: tuple[str, ...]
    exact: bool


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
    separate = separate_parameters(checkpoint)
    assembled = assembled_parameters(checkpoint, options.weights, separate)
    elsewhere = assembled | (checkpoint.named.keys() - graph.graph.initializers.keys())
    placement = plan_placement(checkpoint, options.weights, elsewhere)
    parts = separate_experts(graph, checkpoint, placement, separate)
    rounded = _lossy_weights(checkpoint)
    files: tuple[ComputedFile, ...] = ()
    if options.dense == "int8":
        done, file = convert_projections(graph, checkpoint)
        rounded, files = (*rounded, done), (file,)
    if options.dense == "packed":
        files = (pack_projections(graph, checkpoint, progress),)
    files = assemble(graph, checkpoint, assembled, parts) + files
    attach_weights(graph, checkpoint, placement)
    lossy = _lossy_cache(options.kv_dtype) + rounded
    return Planned(graph, placement, files, lossy, exact=not rounded)


def _plan_ort(checkpoint: Checkpoint, options: ExportOptions, graph: ir.Model) -> Planned:
    placement, files = lower_to_ort(graph, checkpoint, options)
    lossy = _lossy_cache(options.kv_dtype) + (() if options.provider == "cpu" else (CUDA_LOSS,))
    rounded = _lossy_weights(checkpoint)
    rounded += (EXPERTS_INT4,) if options.experts == "int4" else ()
    return Planned(graph, placement, files, lossy + rounded, exact=not rounded)


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
