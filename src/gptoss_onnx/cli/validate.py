"""`gptoss-onnx validate`: compare a package with the PyTorch reference; exit code 1 if a case
fails.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.cli.checkpoint_argument import find_checkpoint, hub_options
from gptoss_onnx.cli.console import (
    extra,
    kernel_options,
    let_threads_sleep,
    say,
    verbose_option,
)
from gptoss_onnx.cli.grouped import GroupedCommand
from gptoss_onnx.cli.progress import progress_on_stderr
from gptoss_onnx.cli.report_forms import Forms, GitHub, form_options
from gptoss_onnx.errors import InputError

if TYPE_CHECKING:
    from gptoss_onnx.validation import Report

PARITY_STEM = "parity"  # of the report's files; a client's have its name, too


@click.command(cls=GroupedCommand, short_help="Compare a package with the PyTorch reference.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    required=True,
    help="The checkpoint the package was exported from: folder or hub id.",
)
@click.option(
    "--suite",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="full adds the long cases.",
)
@kernel_options
@click.option(
    "--runtime",
    type=click.Choice(["python", "cpp", "node", "browser"]),
    default="python",
    show_default=True,
    help="What runs the package; a client in another language is held to the golden vectors.",
)
@click.option(
    "--client",
    metavar="COMMAND",
    help="Command that starts that client; if omitted, its program on the PATH.",
)
@click.option(
    "--write-golden",
    is_flag=True,
    help="Write golden vectors into the package first, from the reference.",
)
@form_options
@hub_options
@verbose_option
def validate(
    package: Path,
    reference: str,
    suite: Literal["quick", "full"],
    kernels: Kernels,
    activations: Activations,
    runtime: Literal["python", "cpp", "node", "browser"],
    client: str | None,
    write_golden: bool,
    report: Path | None,
    junit: Path | None,
    html: Path | None,
    baseline: Path | None,
    write_baseline: Path | None,
    as_json: bool,
    download: bool,
    revision: str | None,
) -> int:
    """Prove that PACKAGE computes what the PyTorch reference computes from the checkpoint.

    Exits with 0 when every case holds, with 1 when one does not or is refused, and with 2 when
    nothing could be judged. The report is written in all three.
    """
    stem = PARITY_STEM if runtime == "python" else f"{PARITY_STEM}-{runtime}"
    forms = Forms(stem, as_json, report, junit, html, baseline, write_baseline, GitHub.here())
    with forms.told_of_errors(package, reference, suite), progress_on_stderr() as display:
        _check_runtime(runtime, client, suite, kernels, activations)
        let_threads_sleep()
        checkpoint = find_checkpoint(reference, revision, download, display)
        display.begin("loading PyTorch and ONNX Runtime")
        with extra("export,cpu"):
            from gptoss_onnx.validation import validate as run_validation
            from gptoss_onnx.validation import validate_client, write_golden_vectors

        accepted, before = forms.baselines()
        if write_golden:
            write_golden_vectors(package, checkpoint, display)
        if runtime == "python":
            found = run_validation(
                package,
                checkpoint,
                suite=suite,
                kernels=kernels,
                activations=activations,
                progress=display,
            )
        else:
            found = validate_client(package, checkpoint, runtime, client, display)
    _keep(found, package, f"{stem}.json")
    return forms.deliver(found, accepted, before)


def _check_runtime(
    runtime: str, client: str | None, suite: str, kernels: str, activations: str
) -> None:
    """Refuse options that would have no effect, because a client runs the golden cases with its
    own kernels.
    """
    if runtime == "python" and client is not None:
        raise InputError(
            "--client: found with --runtime python, expected --runtime cpp, node or browser"
        )
    defaults = {"suite": "quick", "kernels": "auto", "activations": "exact"}
    for name, value in {"suite": suite, "kernels": kernels, "activations": activations}.items():
        if runtime != "python" and value != defaults[name]:
            raise InputError(
                f"--{name} {value}: found with --runtime {runtime}, whose client chooses how it "
                "runs the golden cases; leave it out"
            )


def _keep(found: "Report", package: Path, name: str) -> None:
    """Write the JSON document into the package; if it is read-only, say so on stderr."""
    try:
        found.write(package, name)
    except OSError as error:
        say(f"note: {package / name} not written ({error.strerror})", err=True)
