"""`validate --runtime cpp|node|browser`: verdicts of clients are judged by their numbers, golden
vectors by the reference; a client that fails stops no other column.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from gptoss_onnx.cli import main
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.validation import Report, validate
from gptoss_onnx.validation.columns import clients
from support.stand_ins import program, saying, verdict_of

Judge = Callable[[str], Report]


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


@pytest.fixture
def judge(package: Path, tiny_checkpoint: Path) -> Judge:
    """Let a command judge the package as the client in C++."""

    def run(command: str) -> Report:
        return validate(package, tiny_checkpoint, runtimes=["cpp"], clients={"cpp": command})

    return run


def test_a_good_verdict_passes(package: Path, judge: Judge, tmp_path: Path) -> None:
    verdict = verdict_of(package)
    report = judge(saying(tmp_path, json.dumps(verdict)))
    assert report.passed, report.table()
    assert [row.name for row in report.rows] == [
        "golden vectors",
        "load",
        *(f"golden: {case['name']}" for case in verdict["cases"]),
    ]
    assert "native kernels, exact, on the cpp client (onnxruntime 1.31.1)" in report.table()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_abs", 0.5),
        ("max_abs", None),
        ("logsumexp_abs", 0.5),
        ("greedy_equal", 3),
        ("greedy_equal", "64"),
        ("positions", 1),
        ("passed", False),
    ],
)
def test_numbers_are_judged_not_the_word(
    package: Path, judge: Judge, tmp_path: Path, key: str, value: object
) -> None:
    verdict = verdict_of(package)
    verdict["cases"][0][key] = value
    report = judge(saying(tmp_path, json.dumps(verdict)))
    assert report.failed() == [f"golden: {verdict['cases'][0]['name']}"]
    assert report.exit_code == 1


def test_a_missing_case_fails(package: Path, judge: Judge, tmp_path: Path) -> None:
    verdict = verdict_of(package)
    name = f"golden: {verdict['cases'].pop()['name']}"
    report = judge(saying(tmp_path, json.dumps(verdict)))
    assert report.failed() == [name]
    assert report.cell(name).note == "the verdict has 0 cases of this name, expected 1"


HANGS = "import time; time.sleep(600)"
ENDLESS = "import sys\nwhile True: sys.stdout.write('x' * 1_000_000)"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('hello')", "found no gptoss-onnx-verdict document of version 1"),
        ("", "found no gptoss-onnx-verdict document of version 1"),
        ("print('[' * 9999)", "found no gptoss-onnx-verdict document of version 1"),
        ('print(\'{"format": "gptoss-onnx-verdict", "format_version": 2}\')', "of version 1"),
        ("import os; os.kill(os.getpid(), 11)", "signal SIGSEGV, silently"),
        ("import sys; sys.exit('package: found nothing')", "package: found nothing"),
        (HANGS, "no answer after 1 s"),
        (ENDLESS, "it printed more than 16000000 bytes"),
    ],
)
def test_what_is_no_verdict_is_a_refused_cell(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    if code == "import sys; sys.exit('package: found nothing')":
        code = "import sys; print('package: found nothing', file=sys.stderr); sys.exit(2)"
    monkeypatch.setattr(clients, "TIMEOUT", 1.0 if code == HANGS else 60.0)
    report = judge(program(tmp_path, code))
    cell = report.cell("load")
    assert (cell.state, report.exit_code) == ("refused", 1)
    assert said in cell.note
    assert report.cell("golden vectors").state == "passed"


def test_a_client_that_fails_stops_no_other(
    package: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    good = saying(tmp_path, json.dumps(verdict_of(package)))
    report = validate(
        package,
        tiny_checkpoint,
        kernels="portable",
        runtimes=["python", "cpp", "node", "browser"],
        clients={"cpp": program(tmp_path, "raise SystemExit(9)"), "node": good, "browser": "gone"},
    )
    assert [column.name for column in report.columns[:4]] == ["portable", "cpp", "node", "browser"]
    failed = {cell.column for cell in report.cells if cell.state == "refused"}
    assert failed == {"cpp"}
    states = {cell.state for cell in report.cells if cell.column in ("portable", "node")}
    assert states == {"passed"}
    missing = {column.name: column.missing for column in report.columns}
    assert missing["browser"].startswith("gone is not found on the PATH; build it as clients/brow")
    assert report.exit_code == 1


def test_golden_vectors_are_held_to_the_reference(
    package: Path, judge: Judge, tmp_path: Path
) -> None:
    path = package / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    golden["cases"][0]["sampled_logits"][0][0] += 0.01
    path.write_text(json.dumps(golden))
    report = judge(saying(tmp_path, json.dumps(verdict_of(package))))
    assert report.failed() == ["golden vectors"]


def test_what_cannot_be_judged_is_said(
    package: Path, judge: Judge, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    report = judge("no-such-client")
    assert (report.exit_code, report.cells) == (2, ())
    assert "no-such-client is not found on the PATH; build it as clients/cpp" in report.table()
    shutil.rmtree(package / "golden")
    report = judge(saying(tmp_path, ""))
    assert report.exit_code == 2
    assert "golden.json: not found; write it with `gptoss-onnx validate --w" in report.table()
    half = export(tiny_checkpoint, tmp_path / "half", kv_dtype="float16")
    report = validate(half.folder, tiny_checkpoint, runtimes=["node"])
    assert report.exit_code == 2
    assert "the package's cache is float16" in report.table()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"runtimes": ["rust"]}, "runtime: found 'rust', expected one of python, cpp, node"),
        ({"runtimes": ["cpp", "cpp"]}, "runtime: found one twice in cpp, cpp"),
        ({"clients": {"cpp": "x"}}, "client cpp: found without --runtime cpp"),
        ({"clients": {"python": "x"}}, "client: found 'python', expected one of cpp"),
        ({"runtimes": ["cpp"], "clients": {"cpp": "'"}}, "client cpp: No closing quotation"),
        ({"runtimes": []}, "runtime: found none"),
        ({"cpu_levels": ["sse"]}, "cpu level: found 'sse', expected one of scalar"),
    ],
)
def test_what_is_asked_for_is_checked(
    package: Path, tiny_checkpoint: Path, asked: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        validate(package, tiny_checkpoint, **asked)  # type: ignore[arg-type]  # wrong on purpose


def test_the_verdict_says_what_was_not_judged(
    package: Path, judge: Judge, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    report = validate(package, tiny_checkpoint, kernels="portable")
    others = "genai, onnx.reference, openvino (--runtime)"
    left = f"; not judged: native (--kernels), cpp, node, browser, {others}"
    assert report.table().splitlines()[-1].endswith(left)
    report = judge(saying(tmp_path, json.dumps(verdict_of(package))))
    left = f"; not judged: native, portable, node, browser, {others}"
    assert report.table().splitlines()[-1].endswith(left)
    options = {column.name: column.options for column in report.columns}
    assert options["cpp"] == "--runtime cpp"
    assert options["native"] == "--runtime python"


def test_command_line(package: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    verdict = saying(tmp_path, json.dumps(verdict_of(package)))
    judged = ["validate", str(package), "--reference", str(tiny_checkpoint)]
    arguments = [*judged, "--runtime", "browser"]
    report = ["--report", str(tmp_path / "report")]
    run = CliRunner().invoke(main, [*arguments, "--client", verdict, *report])
    assert run.exit_code == 0, run.output
    assert json.loads((tmp_path / "report" / "parity-browser.json").read_text())["passed"] is True
    run = CliRunner().invoke(main, [*arguments, "--client", f"browser={verdict}"])
    assert run.exit_code == 0, run.output
    for more, said in (
        (["--suite", "full"], "--suite full: found with --runtime browser"),
        (
            ["--runtime", "node", "--client", verdict],
            "--client: found without the name of a runtime",
        ),
        (["--client", "cpp=x"], "client cpp: found without --runtime cpp"),
    ):
        run = CliRunner().invoke(main, [*arguments, *more])
        assert run.exit_code == 2
        assert said in run.output
