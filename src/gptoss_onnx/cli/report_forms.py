"""The forms in which `validate` writes its report, and what it says where GitHub Actions runs it.

The report is written whether the package passed, failed or could not be judged.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from gptoss_onnx.cli.console import Command, one_line, print_json, say
from gptoss_onnx.errors import InputError
from gptoss_onnx.files import write_atomically
from gptoss_onnx.json_text import dump_json

if TYPE_CHECKING:
    from gptoss_onnx.validation.report.baseline import Baseline
    from gptoss_onnx.validation.report.document import Report

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--report",
        type=FOLDER,
        help="Folder to write the report to: parity.json, parity.html and parity.xml.",
    ),
    click.option("--junit", type=FILE, help="File to write the report to as JUnit XML."),
    click.option("--html", type=FILE, help="File to write the report to as a page."),
    click.option(
        "--baseline",
        type=FILE,
        help="Accept the failures that this file records, unless they are worse now.",
    ),
    click.option(
        "--write-baseline",
        type=FILE,
        help="Record in this file what was found, for --baseline to accept from now on.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table."
    ),
)


@dataclass(frozen=True)
class GitHub:
    """A job of GitHub Actions: where its summary goes, if the runner says so."""

    summary: Path | None

    @classmethod
    def here(cls) -> Self | None:
        """Return the job that runs this process; None elsewhere."""
        if os.environ.get("GITHUB_ACTIONS") != "true":
            return None
        path = os.environ.get("GITHUB_STEP_SUMMARY")
        return cls(Path(path) if path else None)


@dataclass(frozen=True)
class Forms:
    """Which forms were asked for, and where each goes; `stem` is the name of those in `folder`."""

    stem: str
    as_json: bool
    folder: Path | None
    junit: Path | None
    html: Path | None
    baseline: Path | None
    write_baseline: Path | None
    github: GitHub | None

    @contextmanager
    def told_of_errors(self, package: Path, reference: str, suite: str) -> Iterator[None]:
        """Let a report say why nothing could be judged, if the block raises."""
        try:
            yield
        except Exception as error:
            document = error_document(str(package), reference, suite, one_line(str(error)))
            try:
                if self._asked():  # or PyTorch would be loaded for nothing
                    self._write_error(document)
            except OSError as problem:
                say(f"note: the report could not be written ({problem})", err=True)
            if self.as_json:
                print_json(document)
            raise

    def baselines(self) -> "tuple[Baseline | None, Baseline | None]":
        """Return the baseline to judge by, and the one to renew; None where there is none.

        Raises:
            InputError: the first file is missing, or one of them is no baseline.
        """
        renewed = self.write_baseline
        return (
            None if self.baseline is None else _read_baseline(self.baseline),
            None if renewed is None or not renewed.exists() else _read_baseline(renewed),
        )

    def deliver(
        self, found: "Report", accepted: "Baseline | None", before: "Baseline | None"
    ) -> int:
        """Write and print a report, judged by a baseline; returns the exit code.

        `before` is what the baseline to write was; it changes where more than noise differs.
        """
        if self.write_baseline is not None:
            _record(found, before, self.write_baseline)
        if accepted is not None:
            found = accepted.apply(found)
        self._write(found)
        if self.as_json:
            print_json(found.to_json())
        else:
            self._print(found)
        return found.exit_code

    def _asked(self) -> bool:
        """Tell whether a form other than that on stdout is asked for."""
        return any((self.folder, self.junit, self.html, self.github))

    def _write_error(self, document: Mapping[str, Any]) -> None:
        try:
            from gptoss_onnx.validation.report.document import Report
        except ImportError:  # that may be the error; the JSON document needs nothing else
            if self.folder is not None:
                path = self.folder / f"{self.stem}.json"
                _write_all([path], f"{dump_json(document)}\n".encode())
        else:
            self._write(Report.from_json(document))

    def _print(self, found: "Report") -> None:
        from gptoss_onnx.validation.report import github

        text = found.table()
        say(text if self.github is None else github.quoted(text, secrets.token_hex(16)))

    def _write(self, found: "Report") -> None:
        from gptoss_onnx.validation.report.html import to_html
        from gptoss_onnx.validation.report.junit import to_junit

        pages, suites = [self.html], [self.junit]
        if self.folder is not None:
            found.write(self.folder, f"{self.stem}.json")
            pages.append(self.folder / f"{self.stem}.html")
            suites.append(self.folder / f"{self.stem}.xml")
        _write_all(pages, to_html(found).encode() if any(pages) else b"")
        _write_all(suites, to_junit(found) if any(suites) else b"")
        if self.github is not None:
            _tell(self.github, found)


def error_document(package: str, reference: str, suite: str, error: str) -> dict[str, Any]:
    """Return the JSON document of a run that could not judge, as `Report.to_json` does; it is made
    here because PyTorch, which that imports, may be what is missing.
    """
    return {
        "format": "gptoss-onnx-parity",
        "format_version": 2,
        "passed": False,
        "exit_code": 2,
        "package": package,
        "reference": reference,
        "suite": suite,
        "seed": 0,
        "versions": {},
        "machine": {},
        "columns": [],
        "rows": [],
        "cells": [],
        "comparisons": [],
        "error": error,
    }


def form_options(command: Command) -> Command:
    """Add the options that say where the forms of a report go."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _read_baseline(path: Path) -> "Baseline":
    from gptoss_onnx.validation.report.baseline_file import read_baseline

    try:
        return read_baseline(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; write it with --write-baseline {path}") from error


def _record(found: "Report", before: "Baseline | None", path: Path) -> None:
    from gptoss_onnx.validation.report.baseline import Baseline
    from gptoss_onnx.validation.report.baseline_file import write_baseline

    if not found.cells:
        say(f"note: {path} not written: nothing was judged", err=True)
        return
    write_baseline(Baseline.of(found, before), path)


def _write_all(paths: list[Path | None], content: bytes) -> None:
    for path in paths:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)


def _tell(job: GitHub, found: "Report") -> None:
    """Annotate the run, on stderr because stdout may be a JSON document, and add to its summary."""
    from gptoss_onnx.validation.report.github import annotations, job_summary

    for line in annotations(found):
        click.echo(line, err=True)
    if job.summary is not None:
        with job.summary.open("a", encoding="utf-8") as file:
            file.write(job_summary(found))
