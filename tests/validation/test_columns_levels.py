"""`validate --cpu-level`: native kernels at other levels, each in a process of its own."""

import sys
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.validation import Report, validate
from gptoss_onnx.validation.columns import levels
from support.native_levels import LEVELS, cpu_levels, needs_native

pytestmark = needs_native


def judge(package: Package, checkpoint: Path, *asked: str) -> Report:
    return validate(package.folder, checkpoint, kernels="native", cpu_levels=asked)  # type: ignore[arg-type]  # levels by name


def test_each_level_is_a_column(tiny_package: Package, tiny_checkpoint: Path) -> None:
    asked = cpu_levels()[:2]  # scalar, and avx2 where the machine has it
    report = judge(tiny_package, tiny_checkpoint, *asked)
    assert report.passed, report.table()
    judged = [column for column in report.columns if not column.missing]
    assert [column.name for column in judged] == [f"native {level}" for level in asked]
    for column in judged:
        (level,) = column.name.split()[1:]
        assert f", {level})" in column.runs
        assert column.options == f"--kernels native --cpu-level {level}"
        cases = [cell.case for cell in report.cells if cell.column == column.name]
        assert cases == [row.name for row in report.rows]
    errors = {cell.difference.max_abs for cell in report.cells if cell.case == "prefill"}  # type: ignore[union-attr]  # prefill compares logits
    assert len(errors) == len(asked)  # other kernels round otherwise: they really ran


@pytest.mark.skipif(cpu_levels() == LEVELS, reason="this processor has every level")
def test_a_level_that_the_processor_lacks_is_missing(
    tiny_package: Package, tiny_checkpoint: Path
) -> None:
    level = LEVELS[len(cpu_levels())]
    report = judge(tiny_package, tiny_checkpoint, level)
    assert (report.exit_code, report.cells) == (2, ())
    assert f"GPTOSS_CPU_LEVEL: found '{level}', expected a level of this CPU" in report.table()


def test_a_target_without_native_kernels_has_no_levels(
    ort_package: Package, demo_checkpoint: Path
) -> None:
    report = judge(ort_package, demo_checkpoint, "scalar")
    assert report.exit_code == 2
    assert "a package of target ort has no native kernels" in report.table()


FAULTS = {
    "import os; os.kill(os.getpid(), 4)": "signal SIGILL, silently",
    "raise SystemExit('one line')": "one line",
    "print('hello')": "the report of its process: not JSON",
    "print('[1]')": "the report of its process is no JSON object",
    'print(\'{"format": "gptoss-onnx-parity", "format_version": 2}\')': "report",
    "import time; time.sleep(600)": "no answer after 2 s",
    "import sys\nwhile True: sys.stdout.write('x' * 1_000_000)": "it printed more than 16000000",
}


@pytest.mark.parametrize(("code", "said"), FAULTS.items(), ids=FAULTS.values())
def test_a_process_that_fails_is_a_refused_cell(
    tiny_package: Package,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    said: str,
) -> None:
    monkeypatch.setattr(levels, "WORDS", (sys.executable, "-c", code))
    monkeypatch.setattr(levels, "TIMEOUT", 2.0 if "sleep" in code else 60.0)
    report = judge(tiny_package, tiny_checkpoint, "scalar")
    (cell,) = report.cells
    assert (cell.case, cell.state, report.exit_code) == ("load", "refused", 1)
    assert said in cell.note
