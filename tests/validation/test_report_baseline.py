"""Accepted drift: what failed as recorded is accepted, what is new or worse fails, and the file's
diff shows changes alone.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.report.baseline import MOST_FINDINGS, SAME, WORSE, Baseline
from gptoss_onnx.validation.report.baseline_file import (
    FILE_LIMIT,
    read_baseline,
    write_baseline,
)
from gptoss_onnx.validation.report.document import Comparison, Finding, Report
from support.sample_reports import HOSTILE, LARGE, SMALL, cell, failing, hostile, passing, report


def with_cell(difference: Difference | None, **changes: Any) -> Report:
    """Return a report of one failed cell."""
    failed = replace(cell("decode", "native"), state="failed", difference=difference)
    return report((replace(failed, **changes),))


def with_findings(*found: str, state: Any = "failed") -> Report:
    findings = tuple(Finding("layers.3", name, "1", "2") for name in found)
    comparison = Comparison("graph", "nodes", state, 0.1, findings)
    return replace(report((cell("decode", "native"),)), comparisons=(comparison,))


def reread(baseline: Baseline, tmp_path: Path) -> Baseline:
    write_baseline(baseline, tmp_path / "baseline.json")
    return read_baseline(tmp_path / "baseline.json")


@pytest.mark.parametrize("make", [passing, failing], ids=["passed", "failed"])
def test_what_is_recorded_is_accepted(make: Callable[[], Report], tmp_path: Path) -> None:
    found = make()
    baseline = reread(Baseline.of(found), tmp_path)
    assert baseline == Baseline.of(found)
    judged = baseline.apply(found)
    assert judged.exit_code == 0
    assert judged.states().count("accepted") == sum(
        state in ("failed", "refused", "accepted") for state in found.states()
    )
    passed = [state for state in found.states() if state == "passed"]
    assert judged.states().count("passed") == len(passed)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_names_of_strangers_are_recorded(text: str, tmp_path: Path) -> None:
    found = hostile(text)
    assert reread(Baseline.of(found), tmp_path).apply(found).exit_code == 0


WITHIN, BEYOND = 0.9 * WORSE, 1.2 * WORSE
MOVED: dict[str, tuple[Difference, bool]] = {
    "as recorded": (LARGE, True),
    "a little larger": (replace(LARGE, max_abs=LARGE.max_abs * WITHIN), True),
    "smaller": (replace(LARGE, max_abs=LARGE.max_abs / 100), True),
    "larger": (replace(LARGE, max_abs=LARGE.max_abs * BEYOND), False),
    "of a larger KL": (replace(LARGE, kl=LARGE.kl * BEYOND), False),
    "with more wrong tokens": (replace(LARGE, top1=1 - (1 - LARGE.top1) * BEYOND), False),
    "not finite": (replace(LARGE, max_abs=math.inf), False),
    "no number": (replace(LARGE, max_abs=math.nan), False),
}


@pytest.mark.parametrize(("difference", "accepted"), MOVED.values(), ids=MOVED.keys())
def test_a_failure_is_accepted_unless_it_is_worse(difference: Difference, accepted: bool) -> None:
    judged = Baseline.of(with_cell(LARGE)).apply(with_cell(difference))
    (found,) = judged.cells
    assert found.state == ("accepted" if accepted else "failed")
    assert judged.exit_code == (0 if accepted else 1)
    assert ("worse than the baseline" in found.note) is not accepted


def test_what_was_not_finite_stays_accepted_and_what_passed_does_not_fail() -> None:
    broken = Difference(3, math.inf, math.nan, math.inf, 0.0)
    assert Baseline.of(with_cell(broken)).apply(with_cell(broken)).exit_code == 0
    baseline = Baseline.of(with_cell(SMALL, state="passed"))
    (found,) = baseline.apply(with_cell(LARGE)).cells
    assert (found.state, found.note) == ("failed", "the baseline has it as passed")


def test_a_new_case_fails() -> None:
    judged = Baseline.of(passing()).apply(with_cell(LARGE, case="another"))
    assert judged.exit_code == 1


def test_a_refusal_is_not_accepted_as_a_failure() -> None:
    baseline = Baseline.of(with_cell(None, state="refused"))
    assert baseline.apply(with_cell(None, state="refused")).exit_code == 0
    assert baseline.apply(with_cell(LARGE)).exit_code == 1
    assert Baseline.of(with_cell(LARGE)).apply(with_cell(None, state="refused")).exit_code == 1


def test_what_failed_and_passes_now_says_so() -> None:
    judged = Baseline.of(with_cell(LARGE)).apply(with_cell(SMALL, state="passed", note="well"))
    assert judged.exit_code == 0
    assert judged.cells[0].note.startswith("well; fixed: renew the baseline")
    compared = Baseline.of(with_findings("alpha")).apply(with_findings(state="passed"))
    assert compared.comparisons[0].note.startswith("fixed: renew the baseline")


def test_findings_are_accepted_each_by_name() -> None:
    baseline = Baseline.of(with_findings("alpha", "beta"))
    assert baseline.apply(with_findings("beta")).exit_code == 0
    judged = baseline.apply(with_findings("alpha", "gamma"))
    assert judged.exit_code == 1
    assert "1 findings, first layers.3 gamma" in judged.comparisons[0].note
    many = with_findings(*map(str, range(MOST_FINDINGS + 1)))
    assert Baseline.of(many).apply(many).exit_code == 1


def test_noise_makes_no_diff(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    write_baseline(Baseline.of(failing()), path)
    before = path.read_text()
    noisy = failing()
    cells = tuple(
        it if it.difference is None else replace(it, seconds=9.0, difference=_noisy(it.difference))
        for it in noisy.cells
    )
    noisy = replace(noisy, cells=cells[::-1], comparisons=noisy.comparisons[::-1])
    write_baseline(Baseline.of(noisy, read_baseline(path)), path)
    assert path.read_text() == before


def test_drift_makes_a_diff_of_its_own_lines(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    write_baseline(Baseline.of(failing()), path)
    before = path.read_text().splitlines()
    drifted = failing()
    moved = replace(LARGE, max_abs=LARGE.max_abs * 2 * SAME)
    cells = (drifted.cells[0], replace(drifted.cells[1], difference=moved), *drifted.cells[2:])
    write_baseline(Baseline.of(replace(drifted, cells=cells), read_baseline(path)), path)
    after = path.read_text().splitlines()
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


def _noisy(difference: Difference) -> Difference:
    most = 0.9 * SAME
    values = {
        name: value * most
        for name, value in dataclasses.asdict(difference).items()
        if name in ("max_abs", "kl")
    }
    return replace(difference, **values)


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path
        for key in parents:
            document = document[key]
        document[last] = value

    return change


CELL = ("cells", "decode", "portable")
SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": _set("format", value="x"),
    "a newer version": _set("format_version", value=2),
    "a key too many": _set("more", value=1),
    "no cells": lambda document: document.pop("cells"),
    "cells in a list": _set("cells", value=[]),
    "a case that is a number": _set("cells", "decode", value=1),
    "a cell that is a list": _set(*CELL, value=[]),
    "no state": lambda document: document["cells"]["decode"]["portable"].pop("state"),
    "a state that is none": _set(*CELL, "state", value="fine"),
    "a state that is a list": _set(*CELL, "state", value=[]),
    "a text for an error": _set(*CELL, "max_abs", value="0.1"),
    "a truth for an error": _set(*CELL, "kl", value=True),
    "a negative error": _set(*CELL, "kl", value=-1),
    "a share above one": _set(*CELL, "top1", value=1.5),
    "an unknown key of 10,000 letters": _set(*CELL, "x" * 10_000, value=1),
    "findings that are numbers": _set("comparisons", "graph", "findings", value=[1]),
    "too many findings": _set("comparisons", "graph", "findings", value=["a"] * 201),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_files_that_are_no_baselines(
    spoil: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    path = tmp_path / "baseline.json"
    write_baseline(Baseline.of(failing()), path)
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="delete it and write it with --write-baseline") as caught:
        read_baseline(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[" * 100_000, b"\xff", b'{"a": NaN}', b" " * (FILE_LIMIT + 1)]
)
def test_files_that_are_not_json(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"baseline\.json"):
        read_baseline(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="found a FIFO"):
        read_baseline(path)
