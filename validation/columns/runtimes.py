"""Columns `onnx.reference` and `openvino`: a portable package's graph in another runtime, with the
bodies that it carries.

A process of its own holds the runtime. The cases are those of the matrix on shorter sequences.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import ModelProto

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.package import Package
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.cases.driving import Drive
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.cases.table import Case, Setting, cases
from gptoss_onnx.validation.columns.evaluated import EvaluatedGraph
from gptoss_onnx.validation.columns.graph_copy import in_standard_words, with_weights
from gptoss_onnx.validation.columns.served import NotInstalledError, Served
from gptoss_onnx.validation.columns.session import Judged, run_case
from gptoss_onnx.validation.judging.model_limits import model_limits
from gptoss_onnx.validation.report.document import Cell, Column, Row, timed

# Cases of the matrix that need nothing but calls of the graph.
CASES = ("prefill", "decode", "chunks of 7", "even batch", "ragged batch", "empty past")
LONGEST = 48  # tokens of a case: beyond windows of up to 36
DECODED = 4  # tokens that are run one by one, beyond the window


@dataclass(frozen=True)
class GraphRuntime:
    """A runtime that takes a graph.

    Attributes:
        name: heads the column.
        shown: the name that people know.
        most: bytes of weights; it holds them as float32, several times.
        seconds: for all cases together.
        prepare: makes the copy of the graph that it can read.
        edited: what was done to the copy.
    """

    name: str
    shown: str
    most: int
    seconds: float
    prepare: Callable[[ModelProto], ModelProto]
    edited: str


GRAPH_RUNTIMES = {
    # written in numpy, to be read: it takes seconds where ONNX Runtime takes milliseconds
    "onnx.reference": GraphRuntime(
        "onnx.reference", "onnx.reference", 100_000_000, 300.0, lambda model: model, "as is"
    ),
    "openvino": GraphRuntime(
        "openvino",
        "OpenVINO",
        500_000_000,
        900.0,
        in_standard_words,
        "functions inlined, TensorScatter as ScatterElements",
    ),
}


class GraphColumn:
    """A column of a runtime that takes a graph; `python` are the words that start a Python that
    has it.
    """

    def __init__(self, runtime: GraphRuntime, package: Package, python: Sequence[str] = ()) -> None:
        self._runtime, self._python = runtime, python
        name = runtime.name
        self.column = Column(
            name,
            "",
            "portable",
            "exact",
            name,
            None,
            f"--runtime {name}",
            _refused(package, runtime),
        )

    def run(self, judged: Judged) -> Iterator[tuple[Row, Cell]]:
        """Let the runtime open the graph and run the cases, and yield what each found.

        What it refuses is a refused cell; a runtime that is not installed, a missing column.
        """
        if self.column.missing:
            return
        runtime, begin = self._runtime, time.perf_counter()
        load = Row("load", f"the graph opened in {runtime.shown}")
        judged.progress.begin(f"{runtime.name}, load: {load.description}")
        with ExitStack() as stack:
            try:
                served = stack.enter_context(self._open(judged.package))
            except NotInstalledError as error:
                self.column = replace(self.column, missing=str(error))
                return
            except (PackageError, RuntimeUnavailable) as error:
                self.column = replace(self.column, runs=f"portable bodies in {runtime.shown}")
                seconds = time.perf_counter() - begin
                yield load, Cell(load.name, runtime.name, "refused", seconds, note=str(error))
                return
            edited = "as is" if judged.package.manifest.target == "openvino" else runtime.edited
            runs = f"portable bodies in {runtime.shown} {served.version} on cpu ({edited})"
            self.column = replace(self.column, runs=runs)
            seconds = time.perf_counter() - begin
            yield load, Cell(load.name, runtime.name, "passed", seconds)
            manifest = judged.package.manifest
            deadline = time.monotonic() + runtime.seconds
            graph = EvaluatedGraph(served, manifest, deadline)
            session = Session(graph, judged.package, "portable", "exact", "cpu")
            setting = _setting(session, judged)
            self.column = replace(self.column, limits=setting.limits)
            for case in cases(judged.suite, setting):
                if case.name in CASES:
                    yield self._cell(case, setting, graph, judged)

    def _open(self, package: Package) -> Served:
        """Write the copy of the graph where the runtime reads it, and let it open it."""
        with tempfile.TemporaryDirectory(prefix="gptoss-onnx-") as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(self._runtime.prepare(with_weights(package, self._runtime.most)), path)
            return Served(self._runtime.name, path, self._python)

    def _cell(
        self, case: Case, setting: Setting, graph: EvaluatedGraph, judged: Judged
    ) -> tuple[Row, Cell]:
        row, name = Row(case.name, case.description), self._runtime.name
        judged.progress.begin(f"{name}, {case.name}: {case.description}")
        if not graph.is_late:
            cell = timed(row, name, lambda: run_case(case, setting))
            if not (graph.is_late and cell.state == "refused"):
                return row, cell
        note = f"the {self._runtime.seconds:g} s for all cases of this column are over"
        return row, Cell(row.name, name, "not available", 0.0, note=note)


def _refused(package: Package, runtime: GraphRuntime) -> str:
    """Return why a package is none for the runtime; empty if it is one."""
    manifest = package.manifest
    if manifest.target == "ort":
        return f"the graph of target {manifest.target} has operators of ONNX Runtime's own"
    if manifest.kv_dtype == "bfloat16":
        return "its cache is bfloat16, which numpy does not have"
    size = sum(package.weight_path(entry).stat().st_size for entry in manifest.weights.files)
    if size > runtime.most:
        return (
            f"the package's weights are {size / 1e9:.1f} GB; {runtime.shown} is given "
            f"{runtime.most / 1e9:.1f} GB at most"
        )
    return ""


def _setting(session: Session, judged: Judged) -> Setting:
    """Return what the cases work on: short sequences, beyond the window where that is narrow."""
    config, expected = judged.checkpoint.config, judged.expected
    expected.restart()
    whole = Sizes.of(config.windows, config.longest)
    length = min(whole.length, max(whole.window + 2 * DECODED, 2 * DECODED), LONGEST)
    sizes = replace(
        whole,
        window=min(whole.window, length),
        length=length,
        steps=min(DECODED, length - 1),
        prompt=max(1, length - DECODED),
    )
    drive = Drive(session, expected, sizes, expected.tokens(sizes.length))
    limits = model_limits(session.manifest, "exact", expected, drive.sequence)
    return Setting(drive, judged.checkpoint, limits)
