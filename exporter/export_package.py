"""`export`: from a checkpoint to a package folder, whole or not at all."""

import logging
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from gptoss_onnx.checkpoint.finite import bytes_checked, first_non_finite
from gptoss_onnx.checkpoint.folder_kinds import GENERATION_CONFIG, TOKENIZER
from gptoss_onnx.choices import (
    AdapterMode,
    ExpertForm,
    KvDtype,
    OnnxRuntime,
    ProjectionForm,
    Provider,
    Target,
    WeightMode,
    check_choice,
)
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter.about import tell_about
from gptoss_onnx.exporter.check import check_onnx
from gptoss_onnx.exporter.describe import describe, lost_by, rounded_by
from gptoss_onnx.exporter.expert_errors import said_of
from gptoss_onnx.exporter.golden import write_golden
from gptoss_onnx.exporter.known_answer import check_known_answer
from gptoss_onnx.exporter.options import ExportOptions, choose_stage
from gptoss_onnx.exporter.ort.genai_config import write_genai_config
from gptoss_onnx.exporter.planned import Planned, plan_export
from gptoss_onnx.exporter.side_files import copy_side_files, generation_settings
from gptoss_onnx.exporter.staging import check_output, staged_folder
from gptoss_onnx.exporter.weights import describe_weights, place_weights
from gptoss_onnx.manifest import RoundedWeights
from gptoss_onnx.package import GRAPH_FILE, Package
from gptoss_onnx.progress import LoggedProgress, Progress
from gptoss_onnx.reference import Checkpoint, Decoder, open_checkpoint
from gptoss_onnx.reference.rounded import apply

# bytes of weights up to which the reference forward for golden vectors is cheap
GOLDEN_LIMIT = 1 << 30
logger = logging.getLogger(__name__)


def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    target: Target = "portable",
    provider: Provider = "cpu",
    weights: WeightMode | None = None,
    dense: ProjectionForm | None = None,
    experts: ExpertForm = "checkpoint",
    kv_dtype: KvDtype | None = None,
    onnxruntime: OnnxRuntime | None = None,
    layers: tuple[int, int] | None = None,
    tokenizer: str | Path | None = None,
    adapters: Sequence[str | Path] = (),
    adapter_mode: AdapterMode = "merge",
    force: bool = False,
    progress: Progress | None = None,
) -> Package:
    """Export a gpt-oss checkpoint to a package folder.

    Reads no weight byte, except of checkpoints under 1 GiB, whose golden vectors need a forward
    pass, and of those that `weights`, `dense` or `target` copies or converts. Where all weights are
    read they must be finite.

    Args:
        checkpoint: a folder, in Hugging Face's layout or OpenAI's, a hub id in the local Hugging
            Face cache, or a GGUF file of gpt-oss, whose weights are all written anew.
        output: the package folder to make; it appears only when it is complete.
        target: `portable` is the graph of `ai.gptoss` ops, each with its body. `ort` is the same
            graph in ops that every build of ONNX Runtime has. `openvino` is the portable graph in
            standard ops that OpenVINO reads: each body stands in the place of its op.
        provider: what a graph of target `ort` is to run on. For `cuda` its attention and experts
            compute in bfloat16 (lossy), and the experts stay MXFP4.
        weights: `link` the checkpoint's files into the package, `copy` them, or, with target
            `portable`, `reference` them where they are. None is `link`; for target `ort` on ONNX
            Runtime 1.28 it is `copy`, one file of all weights.
        dense: form of the projections and lm_head. `checkpoint` is as they are stored; all others
            write a file. `packed`, with target `portable`: bfloat16 in 12 bits, without loss.
            `int8`, with `portable` and `openvino`: 8 bits (lossy). `float32`, with `ort`: the same
            values widened. None is `checkpoint`; for target `ort` on the CPU it is `float32`,
            because ONNX Runtime is slower on the stored ones (docs/adr/0014).
        experts: `checkpoint` is as they are stored. `mxfp4` writes dense ones in MXFP4: without
            loss where their values are MXFP4 already, else lossy. With target `ort` and MXFP4, for
            ONNX Runtime older than 1.32: `int8`, 8-bit integers of the same values, or `int4`,
            4-bit integers (lossy).
        kv_dtype: element type of the KV cache. None is float32; for provider `cuda` it is bfloat16,
            the only one there.
        onnxruntime: the least version of ONNX Runtime that a package of target `ort` is to run on.
            None is `1.32` for the checkpoint's experts on the CPU, and otherwise `1.28`.
        layers: (A, B) exports only the layers A to B − 1: a stage of a model that does not fit on
            one machine. `runtime.StagedSession` runs the stages together. None exports all layers.
        tokenizer: a folder with a tokenizer.json, or that file itself, to use in place of the
            checkpoint's own.
        adapters: folders of PEFT adapters (LoRA), which are added to the weights in this order.
            Weights that they touch are written anew, into a file of the package's own; MXFP4
            experts of touched layers become bfloat16 ones.
        adapter_mode: `merge`, or `runtime`: the one adapter, of projections alone, stays beside
            the weights, and the graph multiplies with it.
        force: replace an existing package.
        progress: hears of the stages; None writes them to the log.

    Raises:
        CheckpointError: the checkpoint cannot be read, has changed meanwhile, or holds weights that
            are not finite.
        RuntimeUnavailable: ONNX Runtime is installed and multiplies MXFP4 in another order than
            the checkpoint's.
        PackageError: the output cannot be written; nothing is left behind.
        InputError: an option has no such value, two do not go together, `target` lacks what the
            checkpoint asks for, or there is no such tokenizer.
    """
    check_choice("adapter_mode", adapter_mode, AdapterMode)
    options = ExportOptions.choose(target, provider, weights, dense, experts, kv_dtype, onnxruntime)
    progress = progress or LoggedProgress(logger)
    output = Path(output).absolute()
    check_output(output, force)
    with (
        open_checkpoint(
            checkpoint, tokenizer=tokenizer, adapters=adapters, adapter_mode=adapter_mode
        ) as opened,
        staged_folder(output, force) as folder,
    ):
        options.check_checkpoint(opened)
        stage = None if layers is None else choose_stage(*layers, opened.config.num_layers)
        _check_finite(opened, options, progress)
        tokenizer_files = copy_side_files(opened, folder)  # before minutes of writing weights
        settings = generation_settings(opened)
        planned = plan_export(opened, options, progress, stage)
        _write_weights(opened, planned, folder, progress)
        rounded = rounded_by(options, planned.measured)
        lost = lost_by(rounded)
        progress.begin("checking and writing the graph")
        tell_about(planned.graph, opened, options, stage)
        proto = ir.to_proto(planned.graph)
        check_onnx(proto)
        (folder / GRAPH_FILE).write_bytes(proto.SerializeToString(deterministic=True))
        (folder / GENERATION_CONFIG).write_bytes(settings.content)
        if stage is None:  # what runs by itself
            if target == "ort":
                write_genai_config(
                    opened.config, settings.special_ids, GRAPH_FILE, folder, provider
                )
            tokenizer = opened.path_of(TOKENIZER)
            if tokenizer is None and TOKENIZER in tokenizer_files:
                tokenizer = folder / TOKENIZER  # a GGUF file's own
            _write_golden_if_small(opened, folder, rounded, tokenizer, progress)
        manifest = describe(
            opened,
            proto,
            options,
            weights=describe_weights(
                opened,
                planned.placement,
                folder,
                computed=tuple(file.name for file in planned.files),
                exact=planned.exact and not lost,
            ),
            rounded=rounded,
            lossy=planned.lossy + lost,
            tokenizer_files=tokenizer_files,
            eos_tokens=settings.eos_tokens,
            stage=stage,
        )
        if options.needs_fp4(opened.config):
            progress.begin("comparing experts with ONNX Runtime's")
            check_known_answer(Package(folder, manifest), opened)
        opened.check_unchanged()
        manifest.write(folder)
    for line in said_of(planned.measured):
        logger.info(line)
    for warning in (*opened.notes, *settings.warnings):
        logger.warning("warning: %s", warning)
    logger.info("wrote %s", output)
    return Package(output, manifest)


def _write_weights(
    checkpoint: Checkpoint, planned: Planned, folder: Path, progress: Progress
) -> None:
    """Bring all weights of the graph into `folder`."""
    if planned.placement is not None:
        place_weights(checkpoint, planned.placement, folder, progress)
    for file in planned.files:
        file.write(folder, progress)


def _check_finite(checkpoint: Checkpoint, options: ExportOptions, progress: Progress) -> None:
    """Refuse weights that are not numbers, if this export reads the weights anyway.

    It reads none of a large checkpoint that it links or refers to; `validate` checks these. It
    reads all of adapters.
    """
    whole = options.weights == "copy" or _size(checkpoint) < GOLDEN_LIMIT
    if not whole and not checkpoint.adapters:
        return
    progress.begin("checking that the weights are finite", bytes_checked(checkpoint, whole))
    broken = first_non_finite(checkpoint, progress, whole)
    if broken is not None:
        raise CheckpointError(
            f"{checkpoint.folder}: {broken}, expected finite weights: the checkpoint is damaged, "
            "download it or quantize it again"
        )


def _size(checkpoint: Checkpoint) -> int:
    return sum(map(checkpoint.size_of, checkpoint.files))


def _write_golden_if_small(
    checkpoint: Checkpoint,
    folder: Path,
    rounded: tuple[RoundedWeights, ...],
    tokenizer: Path | None,
    progress: Progress,
) -> None:
    size = _size(checkpoint)
    if size >= GOLDEN_LIMIT:
        logger.info(
            "no golden vectors: %.1f GB of weights; write them with `gptoss-onnx validate "
            "--write-golden`",
            size / 1e9,
        )
        return
    progress.begin("computing golden vectors with the reference")
    # with the weights that every client of this package multiplies
    model = apply(Decoder.from_checkpoint(checkpoint), folder, rounded)
    write_golden(model, folder, tokenizer)
