"""`gptoss-onnx validate`: compare a package with the PyTorch reference; exit code 1 if a case
fails.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from gptoss_onnx.choices import Activations, AskedRuntime, CpuLevel, Kernels
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
from gptoss_onnx.cli.runtime_options import (
    check_effect,
    commands_of,
    report_stem,
    runtime_options,
)
from gptoss_onnx.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from gptoss_onnx.validation import Report


@click.command(cls=GroupedCommand, short_help="Compare a package with the PyTorch reference.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--reference",
    required=True,
    help="The checkpoint the package was exported from: folder, GGUF file or hub id.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of an adapter that the package was exported with; as many as there, in that "
    "order.",
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
    "--cpu-level",
    "cpu_levels",
    type=click.Choice(get_args(CpuLevel)),
    multiple=True,
    help="CPU level to run native kernels at, in a process of its own; several are allowed.",
)
@runtime_options
@click.option(
    "--slice",
    "layers",
    type=int,
    metavar="K",
    help="Run the first K layers alone, of a model that does not fit; all weights are compared.",
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
    adapters: tuple[Path, ...],
    suite: Literal["quick", "full"],
    kernels: Kernels,
    activations: Activations,
    cpu_levels: tuple[CpuLevel, ...],
    runtimes: tuple[AskedRuntime, ...],
    clients: tuple[str, ...],
    layers: int | None,
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
    """Prove that PACKAGE computes what the PyTorch reference computes from the checkpoint. It may
    be an export of another program; docs/exporters.md says which.

    Exits with 0 when every case holds, with 1 when one does not or is refused, and with 2 when
    nothing could be judged, or a runtime that is named is not there. The report is written in all
    three.
    """
    stem = report_stem(runtimes, cpu_levels)
    forms = Forms(stem, as_json, report, junit, html, baseline, write_baseline, GitHub.here())
    with forms.told_of_errors(package, reference, suite), progress_on_stderr() as display:
        commands = commands_of(clients, runtimes)
        given = {"suite": suite, "kernels": kernels, "activations": activations}
        check_effect(given, runtimes, cpu_levels)
        let_threads_sleep()
        checkpoint = find_checkpoint(reference, revision, download, display)
        display.begin("loading PyTorch and ONNX Runtime")
        with extra("export,cpu"):
            from gptoss_onnx.validation import validate as run_validation
            from gptoss_onnx.validation import write_golden_vectors

        accepted, before = forms.baselines()
        if write_golden:
            write_golden_vectors(package, checkpoint, display, adapters)
        found = run_validation(
            package,
            checkpoint,
            suite=suite,
            kernels=kernels,
            activations=activations,
            runtimes=runtimes,
            clients=commands,
            cpu_levels=cpu_levels,
            layers=layers,
            adapters=adapters,
            progress=display,
        )
    _keep(found, package, f"{stem}.json")
    return forms.deliver(found, accepted, before)


def _keep(found: "Report", package: Path, name: str) -> None:
    """Write the JSON document into the package; if it is read-only, say so on stderr. Nothing is
    written into the folder of another exporter.
    """
    if not (package / MANIFEST_NAME).exists():
        return
    try:
        found.write(package, name)
    except OSError as error:
        say(f"note: {package / name} not written ({error.strerror})", err=True)
