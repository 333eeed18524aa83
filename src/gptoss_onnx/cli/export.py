"""`gptoss-onnx export`: a checkpoint becomes a package folder."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click

from gptoss_onnx.choices import (
    AdapterMode,
    ExpertForm,
    KvDtype,
    OnnxRuntime,
    ProjectionForm,
    Provider,
    Target,
    WeightMode,
)
from gptoss_onnx.cli.checkpoint_argument import find_checkpoint, hub_options
from gptoss_onnx.cli.console import Command, extra, let_threads_sleep, say, verbose_option
from gptoss_onnx.cli.export_summary import export_summary
from gptoss_onnx.cli.grouped import GroupedCommand, GroupedOption
from gptoss_onnx.cli.progress import progress_on_stderr

GRAPH, WEIGHTS = "What the graph is made for", "What becomes of the weights"
# Kept in step with exporter/options.py by a test that tries every combination.
TOGETHER = """\b
Which options go together:
  --target portable (the default)
      --weights link | copy | reference; with --dense int8 or packed, or --experts mxfp4,
          link | copy
      --dense checkpoint | packed | int8
      --experts checkpoint | mxfp4
      --kv-dtype float32 | float16 | bfloat16
  --target openvino
      the same, but for --weights reference and --dense packed
  --target ort --provider cpu
      --experts checkpoint (the default) | mxfp4, with --weights link | copy and --onnxruntime
          1.32 | 1.28; MXFP4 takes 1.32
      --dense float32 | checkpoint
      --experts int8 | int4, with --weights copy and --onnxruntime 1.28 | 1.32
      --kv-dtype float32 | float16
  --target ort --provider cuda
      --kv-dtype bfloat16, --weights copy and --onnxruntime 1.28, which may be left out
What a line does not name keeps its default.
"""


class LayerRange(click.ParamType[tuple[int, int]]):
    """A:B, as Python slices count: the layers from A on, without B."""

    name = "A:B"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return both numbers; raises click's error for any other text."""
        found = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", str(value))
        if found is None:
            self.fail(f"found {str(value)[:40]!r}, expected A:B such as 0:12", param, ctx)
        return int(found[1]), int(found[2])


def choice(
    group: str, flag: str, values: object, text: str, default: str | None = None
) -> Callable[[Command], Command]:
    """Return a decorator that adds an option of `group`, one of the literals `values`."""
    return click.option(
        flag,
        cls=GroupedOption,
        group=group,
        type=click.Choice(get_args(values)),
        default=default,
        show_default=default is not None,
        help=text,
    )


@click.command(cls=GroupedCommand, epilog=TOGETHER, short_help="Turn a checkpoint into a package.")
@click.argument("checkpoint")
@click.option(
    "--output",
    required=True,
    cls=GroupedOption,
    group="The package",
    type=click.Path(path_type=Path),
    help="The package folder to make.",
)
@click.option(
    "--force",
    is_flag=True,
    cls=GroupedOption,
    group="The package",
    help="Replace an existing package.",
)
@click.option(
    "--card",
    is_flag=True,
    cls=GroupedOption,
    group="The package",
    help="Write a model card, README.md, into the package (extra hub).",
)
@click.option(
    "--tokenizer",
    cls=GroupedOption,
    group="The package",
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE",
    help="A folder with tokenizer.json and chat template, or a tokenizer.json, in place of the "
    "checkpoint's own.",
)
@choice(
    GRAPH,
    "--target",
    Target,
    "The ops of the graph: portable, ai.gptoss ops that carry their bodies in standard ONNX; ort, "
    "the ops of stock "
    "ONNX Runtime builds, for onnxruntime-genai and the web; openvino, standard ONNX ops alone, "
    "those that OpenVINO 2026.4 reads, for it and for tools that read no functions.",
    default="portable",
)
@choice(
    GRAPH,
    "--provider",
    Provider,
    "What a graph of target ort is to run on. cuda: experts stay MXFP4, attention and experts "
    "compute in bfloat16. "
    "Lossy; never run so far, for lack of a GPU.",
    default="cpu",
)
@choice(
    GRAPH,
    "--kv-dtype",
    KvDtype,
    "Element type of the KV cache (default float32; with --provider cuda bfloat16).",
)
@choice(
    GRAPH,
    "--onnxruntime",
    OnnxRuntime,
    "The least version of ONNX Runtime that a graph of target ort is to run on (default 1.32; with "
    "--experts int8 or int4, and for cuda, 1.28, which is 1.29 for a model with window layers).",
)
@click.option(
    "--layers",
    cls=GroupedOption,
    group=GRAPH,
    type=LayerRange(),
    help="A:B exports layers A to B − 1 alone: a stage of a model that is larger than one machine. "
    "It runs beside the packages of the other layers (default: all layers).",
)
@choice(
    WEIGHTS,
    "--weights",
    WeightMode,
    "link: hard links to the checkpoint's files (default); copy: a folder of its own (the default "
    "of target ort on ONNX Runtime 1.28); reference: they stay there.",
)
@choice(
    WEIGHTS,
    "--dense",
    ProjectionForm,
    "Projections and lm_head. checkpoint: as they are stored (default). packed, with target "
    "portable: bfloat16 in 12 bits, in a file of the package's own, without loss: a quarter fewer "
    "bytes to read. int8, with target portable: in 8 bits, in such a file. Lossy. float32: the "
    "same values widened, the default of target ort, where checkpoint saves these bytes and "
    "decodes more slowly on several cores.",
)
@choice(
    WEIGHTS,
    "--experts",
    ExpertForm,
    "checkpoint: experts as they are stored. mxfp4: dense ones in MXFP4, in a file of the "
    "package's own: without loss where they were MXFP4 once, as fine-tunes of gpt-oss in bfloat16, "
    "and lossy elsewhere. With target ort, of MXFP4: int8, 8-bit integers of the same values, for "
    "ONNX Runtime before 1.32; int4, 4-bit integers. Lossy.",
    default="checkpoint",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    cls=GroupedOption,
    group=WEIGHTS,
    type=click.Path(path_type=Path),
    help="Folder of a PEFT adapter (LoRA) to add; several are added in their order. What it "
    "touches is written anew; MXFP4 experts of touched layers become bfloat16.",
)
@choice(
    WEIGHTS,
    "--adapter-mode",
    AdapterMode,
    "merge: adapters are in the weights. runtime: one adapter stays beside them, and the graph "
    "multiplies with it, so that packages of many adapters link one base; for attention, router, "
    "dense projections and lm_head.",
    default="merge",
)
@hub_options
@verbose_option
def export(
    checkpoint: str,
    output: Path,
    tokenizer: Path | None,
    target: Target,
    provider: Provider,
    weights: WeightMode | None,
    dense: ProjectionForm | None,
    experts: ExpertForm,
    kv_dtype: KvDtype | None,
    onnxruntime: OnnxRuntime | None,
    layers: tuple[int, int] | None,
    adapters: tuple[Path, ...],
    adapter_mode: AdapterMode,
    force: bool,
    card: bool,
    download: bool,
    revision: str | None,
) -> None:
    """Export CHECKPOINT to an ONNX package.

    CHECKPOINT is a folder, in Hugging Face's layout or OpenAI's (original/), a GGUF file of
    gpt-oss, or a hub id such as openai/gpt-oss-20b: in the local Hugging Face cache, or to be
    downloaded with --download.
    """
    begin = time.perf_counter()
    let_threads_sleep()
    with progress_on_stderr() as display:
        found = find_checkpoint(checkpoint, revision, download, display)
        display.begin("loading PyTorch")
        with extra("export"):
            from gptoss_onnx.exporter import export as export_package
        if card:
            display.begin("reading the checkpoint's card")
            with extra("hub"):
                from gptoss_onnx.hub.card import write_card
                from gptoss_onnx.hub.origin import Origin
            origin = Origin.of_checkpoint(checkpoint, found)

        package = export_package(
            found,
            output,
            target=target,
            provider=provider,
            weights=weights,
            dense=dense,
            experts=experts,
            kv_dtype=kv_dtype,
            onnxruntime=onnxruntime,
            layers=layers,
            tokenizer=tokenizer,
            adapters=adapters,
            adapter_mode=adapter_mode,
            force=force,
            progress=display,
        )
        if card:
            write_card(package, origin, None)
    say(export_summary(output, package.folder, package.manifest, time.perf_counter() - begin))
