"""`validate` writes every form it is asked for, whatever the exit code is."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from gptoss_onnx import validation
from gptoss_onnx.cli.report_forms import error_document
from gptoss_onnx.exporter import Package
from gptoss_onnx.validation.report.document import Report
from support.command_line import CODE, in_process_of_its_own, run
from support.sample_reports import HOSTILE, failing, hostile, not_judged, passing

SCHEMA = json.loads((Path(validation.__file__).parent / "report" / "schema.json").read_text())
FORMS = ("parity.json", "parity.html", "parity.xml")


@pytest.fixture
def judge(
    monkeypatch: pytest.MonkeyPatch, tiny_package: Package, tiny_checkpoint: Path
) -> Callable[..., Any]:
    """Run `validate` with a run in its place that found this report, or raises this error."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    def judged(found: Report | Exception, *options: object) -> Any:
        def instead(*_: object, **__: object) -> Report:
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(validation, "validate", instead)
        return run("validate", tiny_package.folder, "--reference", tiny_checkpoint, *options)

    return judged


def checked(folder: Path) -> dict[str, Any]:
    """Check the three forms in a folder, and return the JSON document."""
    document: dict[str, Any] = json.loads((folder / "parity.json").read_text())
    jsonschema.validate(document, SCHEMA)
    root = ElementTree.fromstring((folder / "parity.xml").read_bytes())
    bad = int(root.attrib["failures"]) + int(root.attrib["errors"])
    assert (bad > 0) == (document["exit_code"] > 0)
    verdict = ("Passed", "Failed", "Could not judge")[document["exit_code"]]
    assert f"<title>{verdict}: " in (folder / "parity.html").read_text(encoding="utf-8")
    return document


@pytest.mark.parametrize(
    ("found", "code"),
    [(passing(), 0), (failing(), 1), (RuntimeError("a bug\nof ours"), 2), (OSError("gone"), 2)],
    ids=["passed", "failed", "bug", "system"],
)
def test_every_form_exists_in_every_exit(
    judge: Callable[..., Any], found: Any, code: int, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "report"
    junit, html = tmp_path / "a" / "junit.xml", tmp_path / "b" / "page.html"
    result = judge(found, "--report", folder, "--junit", junit, "--html", html, "--json")
    assert result.exit_code == code
    assert sorted(path.name for path in folder.iterdir()) == sorted(FORMS)
    document = checked(folder)
    assert json.loads(result.stdout) == document
    assert document["exit_code"] == code
    assert junit.read_bytes() == (folder / "parity.xml").read_bytes()
    assert html.read_bytes() == (folder / "parity.html").read_bytes()
    if code == 2:
        assert (document["cells"], document["error"].isprintable()) == ([], True)
        assert result.stderr.startswith("error: ")


def test_a_package_that_is_none_is_told_in_every_form(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    result = run(
        "validate", tmp_path, "--reference", tiny_checkpoint, "--report", tmp_path / "report"
    )
    assert result.exit_code == 2
    assert "expected a package (manifest.json)" in checked(tmp_path / "report")["error"]
    result = run("validate", "x", "--reference", tmp_path / "none", "--report", tmp_path / "report")
    assert result.exit_code == 2
    assert "none" in checked(tmp_path / "report")["error"]


def test_the_document_of_an_error_is_that_of_a_report() -> None:
    error = not_judged().error or ""
    found = error_document("demo/package", "demo/checkpoint", "quick", error)
    assert found == not_judged().to_json()
    assert list(found) == list(not_judged().to_json())


def test_the_document_exists_where_pytorch_is_missing(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    blocked = f"import sys; sys.modules['torch'] = None; {CODE}"
    arguments = ("validate", "x", "--reference", tiny_checkpoint, "--report", tmp_path, "--json")
    done = in_process_of_its_own(*arguments, code=blocked)
    assert done.returncode == 2
    document = json.loads((tmp_path / "parity.json").read_text())
    assert document == json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert "this command needs" in document["error"]


def test_a_real_run_is_told_in_every_form(
    tiny_package: Package, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = (tiny_package.folder, "--reference", tiny_checkpoint, "--kernels", "native")
    baseline = tmp_path / "baseline.json"
    result = run("validate", *arguments, "--report", tmp_path, "--write-baseline", baseline)
    assert result.exit_code == 0, result.output
    document = checked(tmp_path)
    assert document["machine"]["processor"]
    recorded = json.loads(baseline.read_text())
    assert recorded["cells"].keys() == {row["name"] for row in document["rows"]}
    drawn = [cell for cell in document["cells"] if cell["by_position"]]
    assert (tmp_path / "parity.html").read_text().count("<svg") >= len(drawn)


def test_failures_of_a_baseline_are_accepted(judge: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    recorded = judge(failing(), "--write-baseline", path)
    assert recorded.exit_code == 1  # recording is not judging
    accepted = judge(failing(), "--baseline", path, "--report", tmp_path)
    assert accepted.exit_code == 0
    assert accepted.stdout.splitlines()[-1].startswith("PASS: ")
    assert "accepted" in accepted.stdout
    states = {cell["state"] for cell in checked(tmp_path)["cells"]}
    assert states == {"passed", "accepted", "not available"}
    text = path.read_text()
    assert judge(failing(), "--baseline", path, "--write-baseline", path).exit_code == 0
    assert path.read_text() == text
    fixed = judge(passing(), "--baseline", path)
    assert fixed.exit_code == 0
    assert "fixed: renew the baseline" in fixed.stdout


@pytest.mark.parametrize("option", ["--baseline", "--write-baseline"])
def test_a_baseline_that_is_none_is_refused_before_the_run(
    judge: Callable[..., Any], option: str, tmp_path: Path
) -> None:
    path = tmp_path / "baseline.json"
    path.write_text("{}")
    result = judge(AssertionError("it ran"), option, path)
    assert result.exit_code == 2
    assert f"{path}: expected format 'gptoss-onnx-baseline'" in result.stderr
    assert path.read_text() == "{}"
    path.unlink()
    result = judge(passing(), option, path)
    assert result.exit_code == (2 if option == "--baseline" else 0)


def test_nothing_is_recorded_of_nothing(judge: Callable[..., Any], tmp_path: Path) -> None:
    found = replace(passing(), cells=())
    result = judge(found, "--write-baseline", tmp_path / "baseline.json")
    assert result.exit_code == 2
    assert "not written: nothing was judged" in result.stderr
    assert not (tmp_path / "baseline.json").exists()


def test_a_folder_that_cannot_be_written_is_told(judge: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = judge(RuntimeError("a bug"), "--junit", tmp_path / "file" / "junit.xml")
    assert result.exit_code == 2
    assert "note: the report could not be written" in result.stderr
    assert "a bug" in result.stderr


def test_github_is_told_on_stderr_and_in_the_summary(
    judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = judge(failing(), "--json")
    assert result.exit_code == 1
    json.loads(result.stdout)
    assert result.stderr.startswith("::error title=graph of the package::")
    assert summary.read_text().startswith("before\n## Failed: demo/package\n")
    result = judge(RuntimeError("a bug"))
    assert "::error title=gptoss-onnx validate::could not judge%3A" not in result.stderr
    assert "::error title=gptoss-onnx validate::could not judge: a bug" in result.stderr


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_line_of_a_stranger_is_a_command_of_the_runner(
    judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    result = judge(hostile(text))
    first, *lines, last = result.stdout.splitlines()
    token = re.fullmatch(r"::stop-commands::([0-9a-f]{32})", first)
    assert token is not None
    assert last == f"::{token[1]}::"
    assert not any(token[1] in line for line in lines)
    assert all(line.startswith("::error title=") for line in result.stderr.splitlines())
