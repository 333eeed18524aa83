"""Columns `native LEVEL`: the native kernels at one CPU level.

The library reads GPTOSS_CPU_LEVEL while it loads, so each level has a process of its own, which
runs the same cases and hands its cells back as a report in JSON.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from gptoss_onnx.choices import Activations, CpuLevel
from gptoss_onnx.errors import GptOssError, RuntimeUnavailable
from gptoss_onnx.json_text import JSON_LIMIT, parse_json
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.target import contract_of
from gptoss_onnx.validation.columns.process import QUIET_THREADS, Program
from gptoss_onnx.validation.columns.session import Judged
from gptoss_onnx.validation.report.document import Cell, Column, Report, Row

VARIABLE = "GPTOSS_CPU_LEVEL"
# starts the process
WORDS = (sys.executable, "-m", "gptoss_onnx.validation.columns.level_program")
TIMEOUT = 7200.0  # seconds of all cases; `scalar` is slow


class LevelColumn:
    """The column of one CPU level.

    Args:
        level: which.
        package: what is judged.
        activations: as for `Session.open`.
    """

    def __init__(
        self,
        level: CpuLevel,
        package: Package,
        activations: Activations,
    ) -> None:
        self._level = level
        missing = ""
        if "native" not in contract_of(package.manifest).kernels:
            missing = f"a package of target {package.manifest.target} has no native kernels"
        options = f"--kernels native --cpu-level {level}"
        if activations != "exact":
            options += f" --activations {activations}"
        name = f"native {level}"
        self.column = Column(name, "", "native", activations, "cpu", None, options, missing)

    def run(self, judged: Judged) -> Iterator[tuple[Row, Cell]]:
        """Run the cases in a process of the level, and yield what each found.

        A level that this processor lacks is a missing column; a process that fails is a refused
        cell of row `load`.
        """
        if self.column.missing:
            return
        name = self.column.name
        judged.progress.begin(f"{name}: all cases, in a process of their own")
        begin = time.perf_counter()
        try:
            report = self._report(judged)
        except GptOssError as error:
            self.column = replace(self.column, runs=f"native kernels {self._level}")
            load = Row("load", "a process of that CPU level, which runs the cases")
            yield (
                load,
                Cell(load.name, name, "refused", time.perf_counter() - begin, note=str(error)),
            )
            return
        (theirs,) = report.columns
        self.column = replace(
            self.column, runs=theirs.runs, limits=theirs.limits, missing=theirs.missing
        )
        rows = {row.name: row for row in report.rows}
        for cell in report.cells:
            yield rows[cell.case], replace(cell, column=name)

    def _report(self, judged: Judged) -> Report:
        """Return what the process found, in one column."""
        job = {
            "package": str(judged.package.folder.resolve()),
            "reference": str(judged.checkpoint.folder.resolve()),
            "adapters": [str(a.folder.path.resolve()) for a in judged.checkpoint.adapters],
            "suite": judged.suite,
            "activations": judged.activations,
            "seed": judged.expected.seed,
            "threads": torch.get_num_threads(),
        }
        with Program(WORDS, {VARIABLE: self._level, **QUIET_THREADS}) as program:
            done = program.finish(json.dumps(job).encode(), TIMEOUT, JSON_LIMIT)
        if done.code != 0:
            raise RuntimeUnavailable(done.last_words())
        document = parse_json(done.output, "the report of its process", RuntimeUnavailable)
        if not isinstance(document, dict):
            raise RuntimeUnavailable("the report of its process is no JSON object")
        report = Report.from_json(document)
        found = report.machine.get("cpu level")
        named = {row.name for row in report.rows}
        if len(report.columns) != 1 or any(cell.case not in named for cell in report.cells):
            raise RuntimeUnavailable("the report of its process is not one of a single column")
        if report.columns[0].missing == "" and found != self._level:
            raise RuntimeUnavailable(f"its process ran at level {found}, expected {self._level}")
        return report
