"""`validate`: run every parity case on a package and judge it against the PyTorch reference."""

import logging
import os
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnx
import torch

from gptoss_onnx.checkpoint.folder_kinds import TOKENIZER
from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter.check import check_onnx
from gptoss_onnx.exporter.golden import FOLDER, write_golden
from gptoss_onnx.progress import LoggedProgress, Progress
from gptoss_onnx.reference import Checkpoint, GptOss, open_checkpoint
from gptoss_onnx.runtime import Session, open_package
from gptoss_onnx.runtime.environment import load_onnxruntime
from gptoss_onnx.validation.cases import FULL, QUICK, Case, Setting, prefill
from gptoss_onnx.validation.expected import Expected
from gptoss_onnx.validation.greedy_case import greedy_agreement
from gptoss_onnx.validation.limits import Limits, Rounded, limits_for, rounded_weights
from gptoss_onnx.validation.metrics import compare
from gptoss_onnx.validation.pair import check_pair, reference_model
from gptoss_onnx.validation.report import CaseResult, Report

Suite = Literal["quick", "full"]
SUITES = {"quick": QUICK, "full": FULL}
GREEDY_TOKENS = {"quick": 64, "full": 256}
WINDOWS = 4  # the shared sequence spans this many windows
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

    A package with rounded weights is held to the reference with these, as closely as any other; one
    more case measures how far they are from the checkpoint's own.

    Args:
        package: the package folder.
        reference: the checkpoint it was exported from: a folder or a hub id.
        suite: `quick`, or `full`, which adds the long context and a longer continuation.
        kernels: as for `Session.open`.
        activations: as for `Session.open`; lossy ones are held to limits of their own.
        progress: hears of the cases; None writes them to the log.

    Raises:
        ParityError: nothing can be judged: weights that are not finite, or a package of another
            model.
        CheckpointError, PackageError, RuntimeUnavailable: as from opening either side.
    """
    if suite not in SUITES:
        raise InputError(f"suite: found {suite!r}, expected one of {', '.join(SUITES)}")
    progress = progress or LoggedProgress(logger)
    progress.begin("opening the package")
    opened = Session.open(package, kernels=kernels, activations=activations)
    with open_checkpoint(reference) as checkpoint, opened as session:
        check_pair(session.package, checkpoint, progress)
        expected = Expected(reference_model(session.package, checkpoint), SEED)
        limits = limits_for(session.manifest, activations)
        window = checkpoint.config.window or 32
        length = min(WINDOWS * window + 13, checkpoint.config.max_position_embeddings - 64)
        setting = Setting(session, expected, expected.tokens(max(2, length)), window)
        progress.begin("checking the graph")
        results = [_check_structure(session, checkpoint)]
        results += [_run(case, setting, limits, progress) for case in SUITES[suite]]
        results.append(_run_greedy(setting, GREEDY_TOKENS[suite], limits, progress))
        rounded = rounded_weights(session.manifest)
        results += [_run_rounded(one, setting, checkpoint, limits, progress) for one in rounded]
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
        PackageError: the package has golden vectors already, or is none; and as for `validate`.
    """
    opened = open_package(package)
    folder = opened.folder
    if os.path.lexists(folder / FOLDER):
        raise PackageError(f"{folder / FOLDER}: exists; delete it to write the golden vectors anew")
    progress = progress or LoggedProgress(logger)
    with open_checkpoint(reference) as checkpoint:
        check_pair(opened, checkpoint, progress)
        progress.begin("computing golden vectors with the reference")
        write_golden(reference_model(opened, checkpoint), folder, checkpoint.path_of(TOKENIZER))
        checkpoint.check_unchanged()
    return folder / FOLDER


def _check_structure(session: Session, checkpoint: Checkpoint) -> CaseResult:
    begin = time.perf_counter()
    note = _other_files(session, checkpoint)
    passed = True
    try:
        check_onnx(onnx.load(session.package.graph, load_external_data=False))
    except PackageError as error:
        passed, note = False, str(error)
    seconds = time.perf_counter() - begin
    return CaseResult(
        "load", "opened in ONNX Runtime, and passed by onnx.checker", passed, seconds, None, note
    )


def _other_files(session: Session, checkpoint: Checkpoint) -> str:
    """Return a note where the weights are not the reference's own files, which explains most
    surprises.
    """
    manifest, root = session.manifest, session.package.weights_root
    if manifest.weights.mode == "copy":
        return ""
    files = [entry for entry in manifest.weights.files if entry.origin == "checkpoint"]
    ours = {(root / entry.name).stat().st_ino for entry in files}
    theirs = {path.stat().st_ino for path in checkpoint.files}
    return (
        ""
        if ours == theirs
        else "the package's weights are not the files of this reference, but others like them"
    )


def _run(case: Case, setting: Setting, limits: Limits, progress: Progress) -> CaseResult:
    progress.begin(f"{case.name}: {case.description}")
    begin = time.perf_counter()
    if case.needs in setting.session.manifest.unsupported:
        passed, note = _refusal(case, setting)
        return CaseResult(
            case.name, case.description, passed, time.perf_counter() - begin, None, note
        )
    found, expected = case.run(setting)
    difference = compare(found, expected)
    seconds = time.perf_counter() - begin
    return CaseResult(case.name, case.description, limits.hold(difference), seconds, difference, "")


def _refusal(case: Case, setting: Setting) -> tuple[Literal[False] | None, str]:
    """Run a case that the target does not offer: the session must refuse it, in words that become
    the note.
    """
    try:
        case.run(setting)
    except InputError as error:
        return None, str(error)
    return False, f"the manifest lists {case.needs} as not supported, but the session ran it"


def _run_rounded(
    rounded: Rounded, setting: Setting, checkpoint: Checkpoint, limits: Limits, progress: Progress
) -> CaseResult:
    """Measure what rounded weights cost, against the checkpoint's own."""
    own = replace(setting, expected=Expected(GptOss.from_checkpoint(checkpoint), SEED))
    case = Case(
        rounded.name,
        "the whole sequence in one call, against the checkpoint's own weights",
        prefill,
    )
    allowed = limits.wider(rounded.limits)
    result = _run(case, own, allowed, progress)
    return replace(result, note=f"against the checkpoint's own weights ({allowed})")


def _run_greedy(setting: Setting, count: int, limits: Limits, progress: Progress) -> CaseResult:
    progress.begin(f"greedy: {count} tokens, chosen one by one")
    begin = time.perf_counter()
    count = min(
        count, setting.expected.config.max_position_embeddings - max(1, setting.window // 2)
    )
    passed, note = greedy_agreement(setting, count, limits)
    seconds = time.perf_counter() - begin
    return CaseResult("greedy", f"{count} tokens, chosen one by one", passed, seconds, None, note)


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in PACKAGES}
    return {**found, "torch": torch.__version__, "onnxruntime": load_onnxruntime().__version__}
