"""Which columns a run has: those that were asked for, and those that were not, which the verdict
names.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, get_args

from gptoss_onnx.choices import Activations, AskedRuntime, CpuLevel, Kernels, Runtime
from gptoss_onnx.errors import InputError
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.target import contract_of
from gptoss_onnx.validation.columns.clients import CLIENTS, ClientColumn
from gptoss_onnx.validation.columns.genai import GenaiColumn
from gptoss_onnx.validation.columns.golden import GoldenVectors
from gptoss_onnx.validation.columns.levels import LevelColumn
from gptoss_onnx.validation.columns.runtimes import GRAPH_RUNTIMES, GraphColumn
from gptoss_onnx.validation.columns.session import NAMES, Judged, SessionColumn, session_columns
from gptoss_onnx.validation.judging.error_model import Products, widest
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.report.document import NOT_ASKED, Cell, Column, Row

RUNTIMES = get_args(Runtime)
LEVELS = get_args(CpuLevel)


class Judge(Protocol):
    """A column, and what fills it."""

    @property
    def column(self) -> Column:
        """What runs the package; all of it is known once the cases have run."""

    def run(self, judged: Judged) -> Iterator[tuple[Row, Cell]]:
        """Run the cases and yield what each found. What goes wrong with a runtime is in the cells,
        or the column is missing; it raises nothing that would stop the others.
        """


@dataclass(frozen=True)
class Asked:
    """What a run is asked to judge.

    Attributes:
        kernels: which of this process's session; `auto` is each that can run the package.
        activations: of native kernels.
        runtimes: what runs the package; `python` is this process's session, and `all` stands for
            each that is there.
        clients: what starts a runtime, by its name: the command of a client, and for the others
            the Python that has the runtime.
        levels: CPU levels of the native kernels, each in a process of its own.
    """

    kernels: Kernels = "auto"
    activations: Activations = "exact"
    runtimes: Sequence[AskedRuntime] = ("python",)
    clients: Mapping[str, str] = field(default_factory=dict)
    levels: Sequence[CpuLevel] = ()

    def __post_init__(self) -> None:
        _check("runtime", self.runtimes, (*RUNTIMES, "all"))
        _check("client", self.clients, RUNTIMES[1:])
        _check("cpu level", self.levels, LEVELS)
        for name in self.clients:
            if not self.has(name):
                raise InputError(f"client {name}: found without --runtime {name}, which it starts")

    def has(self, name: str) -> bool:
        """Say whether a runtime is to be judged."""
        return name in self.runtimes or "all" in self.runtimes

    @property
    def session(self) -> bool:
        """Say whether a session of this process runs: not where native kernels are asked for at
        other levels alone.
        """
        return self.has("python") and not (self.levels and self.kernels == "native")

    def words(self, name: str) -> list[str]:
        """Return the words that start a runtime, none if it starts by itself; raises InputError
        where a quotation is not closed.
        """
        try:
            return shlex.split(self.clients.get(name, ""))
        except ValueError as error:
            raise InputError(f"client {name}: {error}, expected a command") from error


def asked_columns(package: Package, asked: Asked) -> list[Judge]:
    """Return the columns to judge, in the order of the table.

    Raises:
        RuntimeUnavailable: none of the session's kernels can run here, or the ones asked for
            cannot.
        InputError: an argument has no such value.
    """
    columns: list[Judge] = []
    if asked.session:
        columns += session_columns(package, asked.kernels, asked.activations)
    columns += [LevelColumn(level, package, asked.activations) for level in asked.levels]
    vectors = GoldenVectors()
    for name in CLIENTS:
        if asked.has(name):
            columns.append(ClientColumn(name, package, vectors, asked.words(name)))
    if asked.has("genai"):
        columns.append(GenaiColumn(package, asked.words("genai")))
    for name, runtime in GRAPH_RUNTIMES.items():
        if asked.has(name):
            columns.append(GraphColumn(runtime, package, asked.words(name)))
    return columns


def widest_products(judges: Sequence[Judge]) -> Products:
    """Return how the least exact of the sessions multiplies."""
    sessions = [judge.products for judge in judges if isinstance(judge, SessionColumn)]
    return widest(["float32", *sessions])


def limited(
    judges: Sequence[Judge], manifest: Manifest, expected: Expected, token_ids: Sequence[int]
) -> list[Judge]:
    """Return the columns with the limits of this model; those outside of this process find them by
    themselves.
    """
    return [
        judge.limited(manifest, expected, token_ids) if isinstance(judge, SessionColumn) else judge
        for judge in judges
    ]


def all_columns(judges: Sequence[Judge], package: Package, asked: Asked) -> tuple[Column, ...]:
    """Return the columns of a report: what was judged, and then what was not asked for."""
    judged = []
    for judge in judges:
        named = judge.column.name in asked.runtimes or isinstance(judge, LevelColumn)
        judged.append(replace(judge.column, named=named))
    return (*judged, *_left_out(package, asked))


def _left_out(package: Package, asked: Asked) -> tuple[Column, ...]:
    """Return the columns that could have been asked for, each with the option that asks for it."""
    kernels = contract_of(package.manifest).kernels
    options: dict[str, str] = {}
    for name in map(str, kernels):
        if not asked.has("python"):
            options[NAMES.get(name, name)] = "--runtime"
        elif len(kernels) > 1 and (asked.kernels not in ("auto", name) or not asked.session):
            options[name] = "--kernels"
    options |= {name: "--runtime" for name in RUNTIMES[1:] if not asked.has(name)}
    return tuple(
        Column(name, "", "", "", "", None, _options(name, option), NOT_ASKED + option)
        for name, option in options.items()
    )


def _options(name: str, option: str) -> str:
    return f"{option} {name if name in RUNTIMES or option == '--kernels' else 'python'}"


def _check(what: str, found: Iterable[str], offered: Sequence[str]) -> None:
    names = list(found)
    if not names and what == "runtime":
        raise InputError(f"runtime: found none, expected some of {', '.join(offered)}")
    for name in names:
        if name not in offered:
            raise InputError(f"{what}: found {name!r}, expected one of {', '.join(offered)}")
    if len(set(names)) != len(names):
        raise InputError(f"{what}: found one twice in {', '.join(map(str, names))}")
