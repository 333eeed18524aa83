"""`gptoss-onnx inspect`: say what a package or a checkpoint holds, without loading its weights."""

from pathlib import Path

import click

from gptoss_onnx.cli.console import extra, print_json, say, verbose_option
from gptoss_onnx.cli.progress import progress_on_stderr
from gptoss_onnx.errors import InputError


@click.command(short_help="Describe a package, or a checkpoint in any layout.")
@click.argument("path", metavar="PACKAGE|CHECKPOINT")
@click.option(
    "--values",
    is_flag=True,
    help="Of a checkpoint whose experts are dense, read them, and say whether they are MXFP4 that "
    "was widened. It ends at the first that are not.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON: of a package the manifest and what was computed from it.",
)
@verbose_option
def inspect(path: str, values: bool, as_json: bool) -> None:
    """Say what a package holds, and the state of its files; or what a checkpoint is, and what
    `export` links, converts or refuses of it. Loads no weights.

    CHECKPOINT is a folder, in Hugging Face's layout or OpenAI's, a GGUF file of gpt-oss, or a hub
    id in the local cache.
    """
    if _is_checkpoint(path):
        _inspect_checkpoint(path, values, as_json)
        return
    if values:
        raise InputError(f"--values: found with the package {path}, expected a checkpoint")
    with extra("cpu"):
        from gptoss_onnx.inspect.findings import Findings
        from gptoss_onnx.inspect.summary import summarize

    findings = Findings.of(Path(path))
    if as_json:
        print_json(findings.to_json())
    else:
        say(summarize(findings))


def _inspect_checkpoint(path: str, values: bool, as_json: bool) -> None:
    with progress_on_stderr() as display:
        display.begin("loading PyTorch")
        with extra("export"):
            from gptoss_onnx.exporter.checkpoint_findings import CheckpointFindings
            from gptoss_onnx.exporter.checkpoint_summary import summarize

        display.begin("reading headers")
        findings = CheckpointFindings.of(path, display if values else None)
    if as_json:
        print_json(findings.to_json())
    else:
        say(summarize(findings))


def _is_checkpoint(path: str) -> bool:
    """Say whether something is to be read as a checkpoint: what has no file of a package, and a
    hub id.
    """
    from gptoss_onnx.checkpoint.locate import is_hub_id
    from gptoss_onnx.manifest import MANIFEST_NAME
    from gptoss_onnx.package import GRAPH_FILE

    folder = Path(path)
    if folder.is_dir():
        return not any((folder / name).exists() for name in (MANIFEST_NAME, GRAPH_FILE))
    return folder.exists() or is_hub_id(path)
