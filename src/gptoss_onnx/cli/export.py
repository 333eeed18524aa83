"""`gptoss-onnx export`: a checkpoint becomes a package folder."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from gptoss_onnx.cli.console import count_of, extra, file_size, let_threads_sleep, verbose_option

if TYPE_CHECKING:
    from gptoss_onnx.manifest import Manifest, Provider, Target


@click.command(short_help="Turn a checkpoint into a package.")
@click.argument("checkpoint")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The package folder to make.")
@click.option(
    "--target",
    type=click.Choice(["portable", "ort"]),
    default="portable",
    show_default=True,
    help="The ops of the graph: portable, ai.gptoss ops that carry their bodies in standard ONNX; ort, the ops of "
    "stock ONNX Runtime builds, for onnxruntime-genai and the web.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="What a graph of target ort is to run on. cuda: experts stay MXFP4, attention and experts compute in "
    "bfloat16. Lossy; never run so far, for lack of a GPU.",
)
@click.option(
    "--weights",
    type=click.Choice(["link", "copy", "reference"]),
    help="link: hard links to the checkpoint's files (default); copy: a folder of its own (target ort always); "
    "reference: they stay there.",
)
@click.option(
    "--dense",
    type=click.Choice(["checkpoint", "int8"]),
    default="checkpoint",
    show_default=True,
    help="int8: q, k, v, o and lm_head in 8 bits, in a file of the package's own. Lossy.",
)
@click.option(
    "--experts",
    type=click.Choice(["checkpoint", "int4"]),
    default="checkpoint",
    show_default=True,
    help="int4, with target ort: MXFP4 rounded to 4-bit integers, for two thirds of the size. Lossy.",
)
@click.option(
    "--kv-dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Element type of the KV cache (default float32; with --provider cuda bfloat16, and no other).",
)
@click.option("--force", is_flag=True, help="Replace an existing package.")
@verbose_option
def export(
    checkpoint: str,
    output: Path,
    target: "Target",
    provider: "Provider",
    weights: Literal["link", "copy", "reference"] | None,
    dense: Literal["checkpoint", "int8"],
    experts: Literal["checkpoint", "int4"],
    kv_dtype: Literal["float32", "float16", "bfloat16"] | None,
    force: bool,
) -> None:
    """Export CHECKPOINT, a folder or a hub id in the local Hugging Face cache, to an ONNX package."""
    begin = time.perf_counter()
    let_threads_sleep()
    with extra("export"):
        from gptoss_onnx.exporter import export as export_package

    package = export_package(
        checkpoint,
        output,
        target=target,
        provider=provider,
        weights=weights,
        dense=dense,
        experts=experts,
        kv_dtype=kv_dtype,
        force=force,
    )
    click.echo(_summary(output, package.folder, package.manifest, time.perf_counter() - begin))


def _summary(output: Path, folder: Path, manifest: "Manifest", seconds: float) -> str:
    windows = Counter(layer.window for layer in manifest.cache)
    kinds = (f"{count} {f'window {window}' if window else 'full'}" for window, count in sorted(windows.items()))
    model = manifest.model
    lines = {
        "layers": f"{len(manifest.cache)} ({', '.join(kinds)})",
        "experts": f"{model['num_local_experts']}, {model['num_experts_per_tok']} a token",
        "ops": ", ".join(f"{use.count} {use.name}" for use in manifest.ops),
        "weights": _weights(manifest),
        "lossy": ", ".join(manifest.lossy),
        "written": f"{file_size(_bytes_written(folder, manifest))} of new files",
        "time": f"{seconds:.1f} s",
    }
    return "\n".join([str(output), *(f"  {key:<9}{text}" for key, text in lines.items() if text)])


def _weights(manifest: "Manifest") -> str:
    weights = manifest.weights
    done = {
        "link": "hard-linked, no byte copied",
        "copy": "copied",
        "reference": f"referred to in {weights.root}",
    }
    placed = [entry for entry in weights.files if entry.origin == "checkpoint"]
    size = sum(entry.size for entry in placed)
    text = f"{count_of(len(placed), 'file')} {done[weights.mode]} ({file_size(size)}, {weights.layout})"
    computed = (f"{entry.name} computed ({file_size(entry.size)})" for entry in weights.files if entry not in placed)
    return "; ".join([*([text] if placed else []), *computed])


def _bytes_written(folder: Path, manifest: "Manifest") -> int:
    """Return the size of the package's files that are not links to the checkpoint's."""
    weights = manifest.weights
    shared = (entry.name for entry in weights.files if weights.mode == "link" and entry.origin == "checkpoint")
    linked = set(shared)
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if path.relative_to(folder).as_posix() not in linked)
