"""`validate --runtime`: verdicts of clients are judged by their numbers, and golden vectors by the
reference.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gptoss_onnx.cli import main
from gptoss_onnx.errors import InputError, PackageError, ParityError, RuntimeUnavailable
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.validation import validate_client

Verdict = dict[str, Any]
ClientMaker = Callable[..., str]


@pytest.fixture
def package(tiny_package: Package, tmp_path: Path) -> Path:
    """A package of the test's own, to spoil."""
    return shutil.copytree(tiny_package.folder, tmp_path / "package", copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    """The weights stay the same file, whose time the manifest knows."""
    if source.endswith(".safetensors"):
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)


def verdict_of(package: Path) -> Verdict:
    """What a client without any error would print."""
    golden = json.loads((package / "golden" / "golden.json").read_text())
    cases = [
        {
            "name": case["name"],
            "passed": True,
            "positions": len(case["positions"]),
            "max_abs": 1e-5,
            "logsumexp_abs": 1e-6,
            "greedy_tokens": len(case["greedy"]),
            "greedy_equal": len(case["greedy"]),
            "note": "",
        }
        for case in golden["cases"]
    ]
    head = {"format": "gptoss-onnx-verdict", "format_version": 1, "passed": True, "client": "cpp"}
    return {
        **head,
        "runtime": "onnxruntime 1.31.1",
        "kernels": "native",
        "activations": "exact",
        "cases": cases,
    }


@pytest.fixture
def client(tmp_path: Path) -> ClientMaker:
    """Make the command of a program that prints `text` and ends with `code`, whatever it is
    asked.
    """

    def make(text: str, code: int = 0, error: str = "") -> str:
        script = tmp_path / "client.py"
        script.write_text(
            f"import sys\nprint({text!r})\nprint({error!r}, file=sys.stderr)\nsys.exit({code})\n"
        )
        return f"{sys.executable} {script}"

    return make


def test_a_good_verdict_passes(package: Path, tiny_checkpoint: Path, client: ClientMaker) -> None:
    verdict = verdict_of(package)
    report = validate_client(package, tiny_checkpoint, "cpp", client(json.dumps(verdict)))
    assert report.passed, report.table()
    assert [row.name for row in report.rows] == [
        "golden vectors",
        *(case["name"] for case in verdict["cases"]),
    ]
    assert "on the cpp client" in report.table()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_abs", 0.5),
        ("max_abs", None),
        ("logsumexp_abs", 0.5),
        ("greedy_equal", 3),
        ("positions", 1),
    ],
)
def test_numbers_are_judged_not_the_word(
    package: Path, tiny_checkpoint: Path, client: ClientMaker, key: str, value: float | None
) -> None:
    verdict = verdict_of(package)
    verdict["cases"][0][key] = value
    report = validate_client(package, tiny_checkpoint, "node", client(json.dumps(verdict)))
    assert [cell.state for cell in report.cells] == [
        "passed",
        "failed",
        *["passed"] * (len(report.cells) - 2),
    ]


def test_a_missing_case_is_no_verdict(
    package: Path, tiny_checkpoint: Path, client: ClientMaker
) -> None:
    verdict = verdict_of(package)
    name = verdict["cases"].pop()["name"]
    with pytest.raises(ParityError, match=f"found 0 cases named '{name}', expected 1"):
        validate_client(package, tiny_checkpoint, "cpp", client(json.dumps(verdict)))


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", '{"format": "gptoss-onnx-verdict", "format_version": 2}']
)
def test_other_output_is_no_verdict(
    package: Path, tiny_checkpoint: Path, client: ClientMaker, text: str
) -> None:
    with pytest.raises(ParityError, match="found no gptoss-onnx-verdict document of version 1"):
        validate_client(package, tiny_checkpoint, "cpp", client(text))


def test_golden_vectors_are_held_to_the_reference(
    package: Path, tiny_checkpoint: Path, client: ClientMaker
) -> None:
    path = package / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    golden["cases"][0]["sampled_logits"][0][0] += 0.01
    path.write_text(json.dumps(golden))
    report = validate_client(
        package, tiny_checkpoint, "cpp", client(json.dumps(verdict_of(package)))
    )
    assert report.failed() == ["golden vectors"]


def test_what_cannot_run_is_refused(
    package: Path, tiny_checkpoint: Path, client: ClientMaker, tmp_path: Path
) -> None:
    with pytest.raises(
        RuntimeUnavailable, match="no-such-client is not found on the PATH; build it as clients/cpp"
    ):
        validate_client(package, tiny_checkpoint, "cpp", "no-such-client")
    with pytest.raises(RuntimeUnavailable, match="runtime node: package: found nothing"):
        validate_client(package, tiny_checkpoint, "node", client("", 2, "package: found nothing"))
    shutil.rmtree(package / "golden")
    with pytest.raises(
        PackageError, match=r"golden\.json: not found; write it with .*--write-golden"
    ):
        validate_client(package, tiny_checkpoint, "cpp", client(""))
    half = export(tiny_checkpoint, tmp_path / "half", kv_dtype="float16")
    with pytest.raises(InputError, match="its cache is float16"):
        validate_client(half.folder, tiny_checkpoint, "cpp", client(""))


def test_command_line(
    package: Path, tiny_checkpoint: Path, client: ClientMaker, tmp_path: Path
) -> None:
    verdict = json.dumps(verdict_of(package))
    arguments = [
        "validate",
        str(package),
        "--reference",
        str(tiny_checkpoint),
        "--runtime",
        "browser",
    ]
    run = CliRunner().invoke(
        main, [*arguments, "--client", client(verdict), "--report", str(tmp_path / "report")]
    )
    assert run.exit_code == 0, run.output
    assert json.loads((tmp_path / "report" / "parity-browser.json").read_text())["passed"] is True
    run = CliRunner().invoke(main, [*arguments, "--suite", "full"])
    assert run.exit_code == 2
    assert "--suite full: found with --runtime browser" in run.output
