"""A checkpoint named on the command line: found before torch is imported, which takes seconds."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptoss_onnx.cli.console import Command
from gptoss_onnx.cli.grouped import GroupedOption

if TYPE_CHECKING:
    from gptoss_onnx.cli.progress import Display

GROUP = "A checkpoint of the Hugging Face hub"


def hub_options(command: Command) -> Command:
    """Add `--download` and `--revision`, which say what a hub id stands for."""
    download = click.option(
        "--download",
        is_flag=True,
        cls=GroupedOption,
        group=GROUP,
        help="Download what the cache lacks: config, tokenizer and safetensors, but not original/ "
        "and metal/.",
    )
    revision = click.option(
        "--revision",
        cls=GroupedOption,
        group=GROUP,
        help="Branch, tag or commit of a hub id (default main).",
    )
    return download(revision(command))


def find_checkpoint(source: str, revision: str | None, download: bool, display: "Display") -> Path:
    """Return the folder of the checkpoint, downloaded if that is asked for; raises as `locate`
    does.
    """
    from gptoss_onnx.checkpoint.locate import locate

    if download:
        quiet_off_a_terminal()
        display.clear()  # the download has bars of its own
    return locate(source, revision=revision, download=download)


def quiet_off_a_terminal() -> None:
    """Switch huggingface_hub's progress bars off where stderr is a file or a pipe."""
    if not sys.stderr.isatty():
        try:
            from huggingface_hub.utils.tqdm import disable_progress_bars
        except ImportError:  # locate says so
            return
        disable_progress_bars()
