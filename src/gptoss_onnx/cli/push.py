"""`gptoss-onnx push`: upload a package to the Hugging Face hub."""

from pathlib import Path

import click

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.cli.checkpoint_argument import quiet_off_a_terminal
from gptoss_onnx.cli.console import extra, say, verbose_option


@click.command(short_help="Upload a package to the Hugging Face hub.")
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private, if it is made.")
@click.option("--revision", help="A branch, made if there is none (default main).")
@click.option(
    "--path",
    "folder",
    default="onnx",
    show_default=True,
    help="Folder of the repository for the package.",
)
@click.option("--dry-run", is_flag=True, help="List files and bytes, and ask nothing of the hub.")
@verbose_option
def push(
    package: Path,
    repository: str,
    private: bool,
    revision: str | None,
    folder: str,
    dry_run: bool,
) -> None:
    """Upload PACKAGE to the repository OWNER/NAME, in one commit; it is made if there is none.

    What the manifest names goes into a folder there, the card, configuration and tokenizer to its
    root as well. Linked weights are read where they lie. The token is that of `hf auth login`, or
    of the environment variable HF_TOKEN.
    """
    with extra("hub,cpu"):
        import huggingface_hub  # noqa: F401 - push imports it late

        from gptoss_onnx.hub.push import push as push_package
        from gptoss_onnx.runtime import open_package

    quiet_off_a_terminal()
    done = push_package(
        open_package(package),
        repository,
        folder=folder,
        revision=revision,
        private=private,
        dry_run=dry_run,
    )
    lines = [f"  {file_size(upload.size):>10}  {upload.path}" for upload in done.files]
    total = f"{count_of(len(done.files), 'file')}, {file_size(done.size)}"
    if not done.with_root:
        lines.append("  the repository has a card of its own: its root stays as it is")
    end = "nothing was uploaded" if done.url is None else done.url
    say("\n".join([repository, *lines, f"{total}: {end}"]))
