"""`gptoss-onnx card`: write a package's model card, again after each `validate`."""

from pathlib import Path

import click

from gptoss_onnx.cli.console import extra, say, verbose_option
from gptoss_onnx.errors import InputError


@click.command(short_help="Write a package's model card, README.md.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    help="The checkpoint, folder, GGUF file or cached hub id, whose card says the licence. Without "
    "it the package's earlier card does.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FOLDER|FILE",
    help="What `validate --report` wrote; without it the report that `validate` left in the "
    "package.",
)
@verbose_option
def card(package: Path, reference: str | None, report: Path | None) -> None:
    """Write README.md into PACKAGE: what it is, how to run it, what was measured, its licence.

    It claims nothing that the manifest or a report of `validate` does not say.
    """
    with extra("hub,cpu"):
        from gptoss_onnx.hub.card import write_card
        from gptoss_onnx.hub.origin import CARD_FILE, Origin
        from gptoss_onnx.runtime import open_package
    from gptoss_onnx.checkpoint.locate import locate
    from gptoss_onnx.json_text import read_json_object
    from gptoss_onnx.package import PARITY_FILE

    opened = open_package(package)
    origin = None if reference is None else Origin.of_checkpoint(reference, locate(reference))
    found = None
    if report is not None:
        file = report / PARITY_FILE if report.is_dir() else report
        try:
            found = read_json_object(file, InputError)
        except FileNotFoundError:
            raise InputError(f"--report: found no {file}, expected what validate wrote") from None
    write_card(opened, origin, found)
    say(str(package / CARD_FILE))
