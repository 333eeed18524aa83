"""Ask `validate` about a mutant, in a process of its own, and read what it says."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.progress import LoggedProgress
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.runtime import open_package
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.comparison.both import compare
from mutants.bases import Bases
from mutants.copied import Copied
from mutants.mutant import Mutant

SECONDS = 900

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    Attributes:
        name: the mutant's.
        end: `survived`, `killed`, `refused` (`validate` could not begin, and said why in one line)
            or `broke`, which is a fault of ours.
        compared: findings of the comparison with a fresh export, each as one line.
        cases: names of the cases and columns that failed.
        diverged: where outputs are said to depart first, each as one line.
        refused: what was said where a session or an op refused a case, each as one line.
        said: what was refused, or how it broke.
        seconds: of one process.
    """

    name: str
    end: str
    compared: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    said: str = ""
    seconds: float = 0.0

    @property
    def is_killed(self) -> bool:
        """Say whether the mutant cannot be mistaken for a healthy package."""
        return self.end in ("killed", "refused")

    def names(self, mutant: Mutant) -> bool:
        """Say whether some finding, divergence or refusal names the right place."""
        said = (*self.compared, *self.diverged, *self.refused, self.said)
        return any(map(mutant.is_named_by, said))


# Takes a package and its checkpoint; returns whether it passes, and a report as JSON.
Ask = Callable[[Path, Path], tuple[bool, Mapping[str, Any]]]


def by_validate(package: Path, checkpoint: Path) -> tuple[bool, Mapping[str, Any]]:
    """Ask `validate` at its defaults."""
    report = validate(package, checkpoint)
    return report.passed, report.to_json()


def by_comparison(package: Path, checkpoint: Path) -> tuple[bool, Mapping[str, Any]]:
    """Ask the part of `validate` alone that runs nothing."""
    with open_checkpoint(checkpoint) as opened:
        found = compare(open_package(package), opened, LoggedProgress(logger))
    passed = all(comparison.state == "passed" for comparison in found)
    return passed, {"comparisons": [asdict(comparison) for comparison in found], "cells": []}


def judge_all(
    mutants: Sequence[Mutant | None],
    bases: Bases,
    folder: Path,
    workers: int,
    ask: Ask,
) -> Iterator[tuple[Mutant | None, Verdict]]:
    """Yield the verdict of each mutant as it is known; None stands for the healthy package.

    `ask` is `by_validate`, or `by_comparison`, which takes a tenth of the time.
    """
    waiting = list(enumerate(mutants))[::-1]
    running: dict[int, tuple[int, Mutant | None]] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            index, mutant = waiting.pop()
            running[_start(mutant, bases, folder / str(index), ask)] = index, mutant
        process, status = os.wait()
        index, mutant = running.pop(process)
        yield mutant, _read(mutant, folder / f"{index}.json", os.waitstatus_to_exitcode(status))


def _start(mutant: Mutant | None, bases: Bases, folder: Path, ask: Ask) -> int:
    process = os.fork()
    if process:
        return process
    signal.alarm(SECONDS)
    try:
        verdict = _judge(mutant, bases, folder, ask)
        folder.with_suffix(".json").write_text(json.dumps(asdict(verdict)))
    except BaseException as error:  # noqa: BLE001 - the parent tells of it
        print(f"{mutant and mutant.name}: {type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def _judge(mutant: Mutant | None, bases: Bases, folder: Path, ask: Ask) -> Verdict:
    copied = Copied.of(bases.package("portable" if mutant is None else mutant.target), folder)
    if mutant is not None:
        mutant.change(copied)
    copied.write()
    name = "healthy" if mutant is None else mutant.name
    begin = time.perf_counter()
    try:
        passed, document = ask(folder, bases.checkpoint)
    except GptOssError as error:
        said = str(error).replace(str(folder), "PACKAGE")
        end = "refused" if "\n" not in said else "broke"
        return Verdict(name, end, said=said, seconds=time.perf_counter() - begin)
    end = "survived" if passed else "killed"
    places = read_places(document)
    return Verdict(name, end, *places, seconds=time.perf_counter() - begin)


def _read(mutant: Mutant | None, path: Path, code: int) -> Verdict:
    name = "healthy" if mutant is None else mutant.name
    if code:
        return Verdict(name, "broke", said=f"the process ended with {code}")
    found = json.loads(path.read_text())
    lists = {key: tuple(value) for key, value in found.items() if isinstance(value, list)}
    return Verdict(**found | lists)


def read_places(report: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return what a report, as JSON, says of findings, failed cases, divergences and
    refusals."""
    findings = [
        " ".join((finding["where"], finding["what"]))
        for comparison in report.get("comparisons", [])
        for finding in comparison["findings"]
    ]
    failed = [cell for cell in report["cells"] if cell["state"] in ("failed", "refused")]
    cases = [f"{cell['case']} ({cell['column']})" for cell in failed]
    diverged = [_words(cell["divergence"]) for cell in failed if cell.get("divergence")]
    refused = [cell["note"] for cell in failed if cell["state"] == "refused"]
    return tuple(findings), tuple(cases), _unique(diverged), _unique(refused)


def _words(divergence: Mapping[str, Any]) -> str:
    layer, op = divergence["layer"], divergence["op"]
    return f"layers.{layer} {op}" if isinstance(layer, int) and layer >= 0 else str(op)


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
