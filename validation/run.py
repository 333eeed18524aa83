"""`validate`: run every parity case on a package and judge it against the PyTorch reference."""

import logging
import os
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import torch

from gptoss_onnx.checkpoint.folder_kinds import TOKENIZER
from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter.golden import write_golden
from gptoss_onnx.package import GOLDEN_FILE
from gptoss_onnx.progress import LoggedProgress, Progress
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.runtime import Session, open_package
from gptoss_onnx.runtime.environment import load_onnxruntime
from gptoss_onnx.validation.cases.driving import Drive
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.cases.table import Case, Setting, Suite, cases
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import limits_for
from gptoss_onnx.validation.judging.outcome import Outcome
from gptoss_onnx.validation.pair import check_pair, reference_model
from gptoss_onnx.validation.report.document import Report, timed

SUITES = get_args(Suite)
SEED = 20250805
PACKAGES = ("gptoss-onnx", "torch", "onnx", "onnxscript")

logger = logging.getLogger(__name__)


def validate(
    package: str | Path,
    reference: str | Path,
    *,
    suite: Suite = "quick",
    kernels: Kernels = "auto",
    activations: Activations = "exact",
    progress: Progress | None = None,
) -> Report:
    """Compare a package with the PyTorch reference in float32, case by case.

    If a package has rounded weights, the reference computes with these, and the package is held to
    it as closely as any other. One more case measures how far they are from the checkpoint's own.

    Args:
        package: the package folder.
        reference: the checkpoint it was exported from: a folder or a hub id.
        suite: `quick`, or `full`, which adds the long context and a longer continuation.
        kernels: as for `Session.open`.
        activations: as for `Session.open`; each has limits of its own.
        progress: hears of the cases; None writes them to the log.

    Raises:
        InputError: an argument has no such value.
        ParityError: the package was exported from another model.
        CheckpointError: the checkpoint cannot be read, or its weights are not finite.
        PackageError, RuntimeUnavailable: the package cannot be opened.
    """
    if suite not in SUITES:
        raise InputError(f"suite: found {suite!r}, expected one of {', '.join(SUITES)}")
    progress = progress or LoggedProgress(logger)
    progress.begin("opening the package")
    opened = Session.open(package, kernels=kernels, activations=activations)
    with open_checkpoint(reference) as checkpoint, opened as session:
        check_pair(session.package, checkpoint, progress)
        limits = limits_for(session.manifest, activations)
        expected = Expected(reference_model(session.package, checkpoint), SEED, limits.near)
        sizes = Sizes.of(checkpoint.config.windows, checkpoint.config.longest)
        drive = Drive(session, expected, sizes, expected.tokens(sizes.length))
        setting = Setting(drive, checkpoint, limits)
        results = []
        for case in cases(suite, setting):
            progress.begin(f"{case.name}: {case.description}")
            results.append(timed(case.name, case.description, partial(_run, case, setting)))
        checkpoint.check_unchanged()
        return Report(
            package=str(package),
            reference=str(reference),
            suite=suite,
            kernels=session.kernels,
            activations=session.activations,
            provider=session.provider,
            versions=_versions(),
            limits=limits,
            cases=tuple(results),
        )


def write_golden_vectors(
    package: str | Path, reference: str | Path, progress: Progress | None = None
) -> Path:
    """Write golden vectors into a package whose checkpoint was too large for `export` to run;
    returns the folder.

    Raises:
        PackageError: the folder is not a package, or has golden vectors already.
        CheckpointError, ParityError: as for `validate`.
    """
    opened = open_package(package)
    folder = opened.folder
    golden = (folder / GOLDEN_FILE).parent
    if os.path.lexists(golden):
        raise PackageError(f"{golden}: exists; delete it to write the golden vectors anew")
    progress = progress or LoggedProgress(logger)
    with open_checkpoint(reference) as checkpoint:
        check_pair(opened, checkpoint, progress)
        progress.begin("computing golden vectors with the reference")
        write_golden(reference_model(opened, checkpoint), folder, checkpoint.path_of(TOKENIZER))
        checkpoint.check_unchanged()
    return golden


def _run(case: Case, setting: Setting) -> Outcome:
    if case.needs not in setting.drive.session.manifest.unsupported:
        return case.run(setting)
    try:
        case.run(setting)
    except InputError as error:  # as it must, since the target does not offer it
        return Outcome(None, None, str(error))
    note = f"the manifest lists {case.needs} as not supported, but the session ran it"
    return Outcome(None, False, note)


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in PACKAGES}
    return {**found, "torch": torch.__version__, "onnxruntime": load_onnxruntime().__version__}
