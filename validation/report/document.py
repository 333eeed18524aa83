"""The verdict of a parity run: a matrix of cases and of what ran them, with what was found in each
cell.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from gptoss_onnx.errors import InputError
from gptoss_onnx.files import write_atomically
from gptoss_onnx.json_numbers import named
from gptoss_onnx.json_text import dump_json, printable
from gptoss_onnx.package import PARITY_FILE
from gptoss_onnx.typed_json import parse_object
from gptoss_onnx.validation.judging.limits import Limits
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.judging.outcome import Outcome, Tie

FORMAT = "gptoss-onnx-parity"
FORMAT_VERSION = 2
PASSED, FAILED, NOT_JUDGED = 0, 1, 2  # exit codes

NOT_ASKED = "not asked for: "  # begins what `Column.missing` says of it, before the option

# `refused`: an op or the session refused what it should do, which is a failure. `not available`:
# this column cannot do it, and the note says why. `accepted`: it failed as a baseline records.
State = Literal["passed", "failed", "refused", "accepted", "not available"]
FAILURES: tuple[State, ...] = ("failed", "refused")
JUDGED: tuple[State, ...] = ("passed", "accepted", *FAILURES)


@dataclass(frozen=True)
class Column:
    """What ran the package.

    Attributes:
        name: heads the column: `native`, `portable`, `ort`, `node`, …
        runs: one line for people: kernels, activations and provider.
        kernels: `native`, `portable` or `contrib`; a client says it in its own words.
        activations: `exact`, `bf16` or `int8`.
        provider: `cpu`, `cuda`, or the client.
        limits: what the cells are held to; None if each cell has its own.
        options: of `gptoss-onnx validate`, to judge this column alone.
        missing: why nothing of it could run here; empty if it ran.
        named: the caller named it, so that without it the run has not judged what it should.
    """

    name: str
    runs: str
    kernels: str
    activations: str
    provider: str
    limits: Limits | None
    options: str
    missing: str = ""
    named: bool = False

    @property
    def is_asked(self) -> bool:
        """Say whether the run was to judge it; others are in the report by name alone."""
        return not self.missing.startswith(NOT_ASKED)


@dataclass(frozen=True)
class Row:
    """A case: its name, and one line that says what is done."""

    name: str
    description: str


@dataclass(frozen=True)
class LayerError:
    """How far the output of a layer is from the reference's: the root mean square of the
    difference by that of the reference, and what the error model allows.
    """

    layer: int
    relative: float
    allowed: float


@dataclass(frozen=True)
class Divergence:
    """Where a failing case departs from the reference for the first time.

    Attributes:
        layer: its number; None for what comes before or after the layers.
        op: the node: `SinkAttention`, `input_layernorm.Mul`, …
        relative: error of its result, root mean squares, given the inputs that it had.
        inputs_rms: root mean square of these inputs.
        inputs_max: the largest of them, as a magnitude.
        text: all of it in one line.
    """

    layer: int | None
    op: str
    relative: float
    inputs_rms: float
    inputs_max: float
    text: str


@dataclass(frozen=True)
class Cell:
    """What one column found in one case.

    Attributes:
        case, column: names of its row and column.
        state: see `State`.
        seconds: how long it took.
        difference: of the logits; None if none were compared.
        note: what people should know; why, if the state is not `passed`.
        by_position: largest error of each position that was compared, 512 of them at most.
        by_layer: errors of the layers' outputs, where they were measured.
        ties: where a router of the reference chose by less than the error that is allowed.
        divergence: where a failing case departs first.
    """

    case: str
    column: str
    state: State
    seconds: float
    difference: Difference | None = None
    note: str = ""
    by_position: tuple[float, ...] = ()
    by_layer: tuple[LayerError, ...] = ()
    ties: tuple[Tie, ...] = ()
    divergence: Divergence | None = None


@dataclass(frozen=True)
class Finding:
    """Something in the package that is not what an export of the reference has: where, what, and
    both values in words.
    """

    where: str
    what: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}: {self.found}, expected {self.expected}"


@dataclass(frozen=True)
class Comparison:
    """What lies in the package against what the reference has, without running it: `graph` and
    `weights`.
    """

    name: str
    description: str
    state: State
    seconds: float
    findings: tuple[Finding, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Report:
    """One run: what was compared, on what, and all that was found.

    `error` is the one line that says why nothing could be judged; there are no cells then.
    """

    package: str
    reference: str
    suite: str
    seed: int
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    cells: tuple[Cell, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    error: str | None = None

    @property
    def passed(self) -> bool:
        """True if something was judged, and all that was judged passed or is accepted."""
        return self.exit_code == PASSED

    @property
    def exit_code(self) -> int:
        """0 if it passed, 1 if something that was judged failed, 2 if nothing could be judged, or
        nothing of a column that the caller named.
        """
        if self.error is not None or not any(cell.state in JUDGED for cell in self.cells):
            return NOT_JUDGED
        if any(state in FAILURES for state in self.states()):
            return FAILED
        lacking = any(column.named and column.missing for column in self.columns)
        return NOT_JUDGED if lacking else PASSED

    def states(self) -> list[State]:
        """Return the state of everything that was looked at."""
        compared = [comparison.state for comparison in self.comparisons]
        return compared + [cell.state for cell in self.cells]

    def cell(self, case: str, column: str | None = None) -> Cell:
        """Return the cell of a case, of the first column unless one is named.

        Raises:
            InputError: there is none.
        """
        for cell in self.cells:
            if cell.case == case and column in (None, cell.column):
                return cell
        raise InputError(f"the report has no cell {case!r} of column {column!r}")

    def failed(self) -> list[str]:
        """Return the names of the cases that failed or were refused, in any column."""
        names = [cell.case for cell in self.cells if cell.state in FAILURES]
        return list(dict.fromkeys(names))

    def table(self) -> str:
        """Return the report as aligned plain text, with the verdict as its last line."""
        from gptoss_onnx.validation.report.table import table  # which reads what is defined here

        return table(self)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document; see `schema.json`."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "passed": self.passed}
        body = {**asdict(self), "versions": dict(self.versions), "machine": dict(self.machine)}
        document: dict[str, Any] = named({**head, "exit_code": self.exit_code, **body})
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the report that `to_json` made a document of.

        Raises:
            InputError: the document is something else, or of another version.
        """
        body = dict(document)
        head = (body.pop("format", None), body.pop("format_version", None))
        if head != (FORMAT, FORMAT_VERSION):
            raise InputError(
                f"report: found format {head[0]!r:.40} of version {head[1]!r:.20}, expected "
                f"{FORMAT} of version {FORMAT_VERSION}"
            )
        for derived in ("passed", "exit_code"):
            body.pop(derived, None)
        try:
            return parse_object(cls, body, "")
        except TypeError as error:
            raise InputError(f"report: {printable(str(error))}") from error

    def write(self, folder: Path, name: str = PARITY_FILE) -> Path:
        """Write the JSON document to `folder`, which is made if missing; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, f"{dump_json(self.to_json())}\n".encode())
        return folder / name


def timed(case: Row, column: str, run: Callable[[], Outcome]) -> Cell:
    """Run a case and return its cell."""
    begin = time.perf_counter()
    found = run()
    return Cell(
        case.name,
        column,
        _state(found),
        time.perf_counter() - begin,
        found.difference,
        found.note,
        found.by_position,
        ties=found.ties,
    )


def _state(found: Outcome) -> State:
    if found.refused:
        return "refused"
    if found.passed is None:
        return "not available"
    return "passed" if found.passed else "failed"
