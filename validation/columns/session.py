"""Columns of this process's own session: native kernels, portable bodies, ONNX Runtime's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.custom_ops.library import library_info
from gptoss_onnx.errors import InputError, PackageError, RuntimeUnavailable
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.runtime import Package, Session
from gptoss_onnx.runtime.environment import check_version, load_onnxruntime
from gptoss_onnx.runtime.kernels import choose_kernels
from gptoss_onnx.runtime.target import contract_of
from gptoss_onnx.validation.cases.driving import Drive
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.cases.table import Case, Setting, Suite, cases
from gptoss_onnx.validation.divergence.diagnosis import Diagnosis
from gptoss_onnx.validation.divergence.recording import RecordedSession
from gptoss_onnx.validation.judging.error_model import Products, products_of
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import EXACT, Limits
from gptoss_onnx.validation.judging.model_limits import model_limits
from gptoss_onnx.validation.judging.outcome import Outcome
from gptoss_onnx.validation.report.document import Cell, Column, Row, timed

NAMES = {"contrib": "ort"}  # of columns, where they are not those of the kernels
OPEN = Row("load", "opened in ONNX Runtime, and passed by onnx.checker")


@dataclass(frozen=True)
class Judged:
    """What all columns of a run share."""

    package: Package
    checkpoint: Checkpoint
    expected: Expected
    suite: Suite
    activations: Activations
    progress: Progress


@dataclass(frozen=True)
class SessionColumn:
    """A column, for `Session.open` the kernels that run it, and how they multiply."""

    column: Column
    kernels: Kernels
    products: Products = "float32"

    def limited(
        self, manifest: Manifest, expected: Expected, token_ids: Sequence[int]
    ) -> "SessionColumn":
        """Return the column with the limits of this model, by what the reference says of a
        sequence.
        """
        if self.column.missing:
            return self
        activations = self.column.activations
        limits = model_limits(manifest, activations, expected, token_ids, self.products)
        return replace(self, column=replace(self.column, limits=limits))

    def run(self, judged: Judged) -> Iterator[tuple[Row, Cell]]:
        """Open a session, run every case that makes sense for the package, and yield what each
        found.

        What a session refuses that it should do is a refused cell; every other error is raised.
        """
        if self.column.missing:
            return
        name = self.column.name
        try:
            session = RecordedSession.open(judged.package.folder, self.kernels, judged.activations)
        except (PackageError, RuntimeUnavailable) as error:
            yield OPEN, Cell(OPEN.name, name, "refused", 0.0, note=str(error))
            return
        with session:
            setting = _setting(session, judged, self.column.limits or EXACT)
            diagnosis = Diagnosis(session, judged.expected.model, judged.progress)
            for case in cases(judged.suite, setting):
                judged.progress.begin(f"{name}, {case.name}: {case.description}")
                row = Row(case.name, case.description)
                diagnosis.begin()
                yield row, diagnosis.complete(timed(row, name, partial(run_case, case, setting)))


def session_columns(
    package: Package, kernels: Kernels, activations: Activations
) -> list[SessionColumn]:
    """Return the columns that `kernels` asks for; `auto` is each that can run the package.

    Raises:
        RuntimeUnavailable: none of them can run here, or the one that is asked for cannot.
        InputError: an argument has no such value.
    """
    offered = contract_of(package.manifest).kernels
    asked: list[Kernels] = ["native", "portable"] if "native" in offered else ["auto"]
    if kernels != "auto":
        asked = [kernels]
    columns = [_column(package, each, activations) for each in asked]
    if all(entry.column.missing for entry in columns):
        raise RuntimeUnavailable(columns[0].column.missing)
    return columns


def _column(package: Package, kernels: Kernels, activations: Activations) -> SessionColumn:
    options = "" if kernels == "auto" else f"--kernels {kernels}"
    if activations != "exact":
        options = f"{options} --activations {activations}".strip()
    try:
        choice = choose_kernels(package.manifest, kernels, activations, "cpu")
        check_version(load_onnxruntime(), package)
    except RuntimeUnavailable as error:
        column = Column(kernels, "", kernels, activations, "cpu", None, options, str(error))
        return SessionColumn(column, kernels)
    runs = f"{choice.kernels} kernels ({choice.reason}), {activations}, on cpu"
    name = NAMES.get(choice.kernels, choice.kernels)
    column = Column(name, runs, choice.kernels, activations, "cpu", None, options)
    cpu_level = library_info().cpu_level if choice.kernels == "native" else ""
    return SessionColumn(column, kernels, products_of(package.manifest, choice.kernels, cpu_level))


def _setting(session: Session, judged: Judged, limits: Limits) -> Setting:
    """Return what the cases of a column work on: the same tokens in every column."""
    checkpoint, expected = judged.checkpoint, judged.expected
    expected.restart()
    sizes = Sizes.of(expected.config.windows, expected.config.longest)
    drive = Drive(session, expected, sizes, expected.tokens(sizes.length))
    return Setting(drive, checkpoint, limits)


def run_case(case: Case, setting: Setting) -> Outcome:
    """Run a case on a session: what it refuses that it should do is `refused`, and what the package
    does not offer must be refused.
    """
    session = setting.drive.session
    unsupported = isinstance(session, Session) and case.needs in session.manifest.unsupported
    try:
        outcome = case.run(setting)
    except (InputError, PackageError, RuntimeUnavailable) as error:
        if unsupported and isinstance(error, InputError):  # as it must
            return Outcome(None, None, str(error))
        return Outcome(None, False, str(error), refused=True)
    if unsupported:
        note = f"the manifest lists {case.needs} as not supported, but the session ran it"
        return Outcome(None, False, note)
    return outcome
