"""`validate` for another exporter's folder: the same cases and limits, on ONNX Runtime's CPU
kernels.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from gptoss_onnx.errors import InputError, PackageError, RuntimeUnavailable
from gptoss_onnx.manifest import MANIFEST_NAME
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint, Decoder, open_checkpoint
from gptoss_onnx.runtime.arguments import folder_path
from gptoss_onnx.validation.cases.driven import NotAvailableError
from gptoss_onnx.validation.cases.driving import OURS, Drive
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.cases.table import Case, Setting, Suite, cases
from gptoss_onnx.validation.foreign.cases import foreign_cases
from gptoss_onnx.validation.foreign.recognize import recognize
from gptoss_onnx.validation.foreign.session import ForeignSession
from gptoss_onnx.validation.judging.error_model import ErrorModel
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import CACHES, Limits, exact_limits
from gptoss_onnx.validation.judging.outcome import Outcome
from gptoss_onnx.validation.made_on import machine, versions
from gptoss_onnx.validation.pair import check_reference
from gptoss_onnx.validation.report.document import Cell, Column, Report, Row, timed

NAME = "export"  # of the only column


def is_foreign(folder: str | os.PathLike[str]) -> bool:
    """Say whether a folder is there and holds no package of ours; raises InputError for no path."""
    path = Path(folder_path("package", folder))
    return path.is_dir() and not os.path.lexists(path / MANIFEST_NAME)


def validate_foreign(
    folder: str | os.PathLike[str],
    reference: str | Path,
    suite: Suite,
    seed: int,
    progress: Progress,
) -> Report:
    """Hold another exporter's folder to the reference with the checkpoint's own weights.

    What the export cannot do is `not available`, what it does wrongly has failed; there are no
    limits for weights that it has rounded.

    Raises:
        PackageError: nothing in the folder can be driven.
        ParityError: the graph is of another model.
        CheckpointError: the checkpoint cannot be read, or its weights are not finite.
        RuntimeUnavailable: ONNX Runtime cannot be used, or cannot load the graph.
    """
    progress.begin("opening the export")
    export = recognize(folder)
    with open_checkpoint(reference) as checkpoint:
        with ForeignSession.open(export, checkpoint.config) as session:
            check_reference(checkpoint, progress)
            setting = _setting(session, checkpoint, seed)
            found = list(_cells(session, setting, suite, progress))
        checkpoint.check_unchanged()
    return Report(
        package=str(folder),
        reference=str(reference),
        suite=suite,
        seed=seed,
        versions=versions(),
        machine=machine(),
        columns=(_column(session, setting.limits),),
        rows=tuple(row for row, _ in found),
        cells=tuple(cell for _, cell in found),
    )


def _column(session: ForeignSession, limits: Limits) -> Column:
    runs = f"{session.export.exporter}, ONNX Runtime's kernels, {session.kv_dtype} cache, on cpu"
    return Column(NAME, runs, "contrib", "exact", "cpu", limits, options="")


def _setting(session: ForeignSession, checkpoint: Checkpoint, seed: int) -> Setting:
    """Return what the cases work on; the limits are those of a package of ours that computes and
    caches in the same types.
    """
    config = checkpoint.config
    model, near = Decoder.from_checkpoint(checkpoint), CACHES[session.kv_dtype].near
    expected, sizes = Expected(model, seed, near), Sizes.of(config.windows, config.longest)
    tokens = expected.tokens(sizes.length)
    limits = CACHES[session.kv_dtype]
    if session.kv_dtype == "float32":
        errors = ErrorModel.of(config, config.longest)
        limits = exact_limits(errors, expected.scale(tokens), config.vocab_size)
    return Setting(Drive(session, expected, sizes, tokens), checkpoint, limits)


def _cells(
    session: ForeignSession, setting: Setting, suite: Suite, progress: Progress
) -> Iterator[tuple[Row, Cell]]:
    for case in foreign_cases(session.export, cases(suite, setting)):
        progress.begin(f"{case.name}: {case.description}")
        row = Row(case.name, case.description)
        cell = timed(row, NAME, partial(_run, case, setting, session))
        if cell.note != OURS:  # cases of our own session's caches say nothing of an export
            yield row, cell


def _run(case: Case, setting: Setting, session: ForeignSession) -> Outcome:
    reason = session.capabilities.why_not(case.needs)
    if reason is not None:
        return Outcome(None, None, reason)
    try:
        outcome = case.run(setting)
    except NotAvailableError as error:
        return Outcome(None, None, str(error))
    except (InputError, PackageError, RuntimeUnavailable) as error:
        return Outcome(None, False, str(error), refused=True)
    return _with_rounding(outcome, session)


def _with_rounding(outcome: Outcome, session: ForeignSession) -> Outcome:
    """Say of a case that failed that the graph's weights are not the checkpoint's, if it has
    rounded ones.
    """
    rounded, found = session.export.rounded, outcome.difference
    if outcome.passed is not False or found is None or not rounded:
        return outcome
    kl = "" if found.kl is None else f" (KL {found.kl:.1e})"
    note = f"not the checkpoint's weights{kl}: {', '.join(rounded)}"
    return replace(outcome, note="; ".join(filter(None, (note, outcome.note))))
