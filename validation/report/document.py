"""The verdict of a parity run: a table for people, JSON for machines."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.files import write_atomically
from gptoss_onnx.json_text import dump_json
from gptoss_onnx.package import PARITY_FILE
from gptoss_onnx.validation.judging.limits import Limits
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.judging.outcome import Outcome

FORMAT = "gptoss-onnx-parity"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CaseResult:
    """One case: what it did, how long it took, and what it found (see `Outcome`)."""

    name: str
    description: str
    passed: bool | None
    seconds: float
    difference: Difference | None
    note: str


def timed(name: str, description: str, run: Callable[[], Outcome]) -> CaseResult:
    """Run a case and return its result."""
    begin = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - begin
    return CaseResult(name, description, found.passed, seconds, found.difference, found.note)


@dataclass(frozen=True)
class Report:
    """All cases of one run, with what was compared and on what."""

    package: str
    reference: str
    suite: str
    kernels: str
    activations: str
    provider: str
    versions: Mapping[str, str]
    limits: Limits
    cases: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """True if at least one case was judged, and all that were judged passed."""
        judged = [case.passed for case in self.cases if case.passed is not None]
        return bool(judged) and all(judged)

    def table(self) -> str:
        """Return the cases as an aligned plain-text table with a verdict as its last line."""
        header = ("case", "positions", "max abs", "mean abs", "KL (nats)", "top-1", "time", "")
        rows = [header, *(_row(case) for case in self.cases)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = [
            "  ".join(
                _pad(cell, width, index)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        notes = [f"  {case.name}: {case.note}" for case in self.cases if case.note]
        failed = sum(case.passed is False for case in self.cases)
        judged = sum(case.passed is not None for case in self.cases)
        verdict = (
            f"PASS: {judged} cases" if self.passed else f"FAIL: {failed} of {judged} cases failed"
        )
        if judged < len(self.cases):
            verdict += f", {len(self.cases) - judged} not offered"
        kernels = f"{self.kernels} kernels" + (
            f", {self.activations}," if self.activations != "exact" else ""
        )
        summary = (
            f"{verdict} ({kernels} on {self.provider} against the float32 reference; {self.limits})"
        )
        return "\n".join([*lines, *notes, summary])

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "passed": self.passed}
        return {**head, **asdict(self), "versions": dict(self.versions)}

    def write(self, folder: Path, name: str = PARITY_FILE) -> Path:
        """Write the JSON document to `folder`, which is made if missing; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, f"{dump_json(self.to_json())}\n".encode())
        return folder / name


def _row(case: CaseResult) -> tuple[str, ...]:
    verdict = {True: "ok", False: "FAILED", None: "not offered"}[case.passed]
    time = f"{case.seconds:.1f} s"
    found = case.difference
    if found is None:
        return (case.name, "", "", "", "", "", time, verdict)
    numbers = (
        _form(found.max_abs, ".1e"),
        _form(found.mean_abs, ".1e"),
        _form(found.kl, ".1e"),
        _form(found.top1, ".1%"),
    )
    return (case.name, str(found.positions), *numbers, time, verdict)


def _form(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _pad(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in (0, 7) else cell.rjust(width)
