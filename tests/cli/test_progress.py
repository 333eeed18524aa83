"""Long work tells how far it is: in a line that a terminal shows, or with --verbose in a line for
each stage.
"""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from gptoss_onnx.cli import main
from gptoss_onnx.cli.progress import Display, status
from gptoss_onnx.exporter import export
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate, write_golden_vectors
from support.heard_progress import HeardProgress
from support.tiny_package import clone, tiny_checkpoint, tiny_package

ERASE = "\r\x1b[K"
CODE = "from gptoss_onnx.cli import main; main(prog_name='gptoss-onnx')"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose projections int8 can hold."""
    make_checkpoint(tmp_path_factory.mktemp("aligned") / "c", tiny_document(num_hidden_layers=1))
    return tmp_path_factory.getbasetemp() / "aligned0" / "c"


def heard(checkpoint: Path, output: Path, **options: str) -> HeardProgress:
    progress = HeardProgress()
    export(checkpoint, output, progress=progress, **options)
    return progress


# What the library tells


@pytest.mark.parametrize(
    ("options", "stage"),
    [
        ({}, "tracing 2 of 2 layers"),
        ({"weights": "copy"}, "copying the weights"),
        ({"dense": "int8"}, "writing the dense weights in int8"),
        ({"target": "ort", "weights": "copy"}, "writing the weights of target ort"),
    ],
)
def test_export_tells_its_stages_and_all_their_bytes(
    checkpoint: Path, tmp_path: Path, options: dict[str, str], stage: str
) -> None:
    progress = heard(checkpoint, tmp_path / "package", **options)
    assert stage in progress.stages
    assert progress.stages[0] == "checking that the weights are finite"
    assert "computing golden vectors with the reference" in progress.stages[-2:]
    counted = [total for total in progress.totals if total is not None]
    assert len(counted) == (1 if stage.startswith("tracing") else 2)
    assert [
        done
        for done, total in zip(progress.done, progress.totals, strict=True)
        if total is not None
    ] == counted


def test_copying_counts_the_bytes_of_the_files(checkpoint: Path, tmp_path: Path) -> None:
    progress = heard(checkpoint, tmp_path / "package", weights="copy")
    with open_checkpoint(checkpoint) as opened:
        size = sum(file.stat().st_size for file in opened.files)
    assert progress.done[progress.stages.index("copying the weights")] == size
    assert (tmp_path / "package" / "model.safetensors").read_bytes() == (
        checkpoint / "model.safetensors"
    ).read_bytes()


def test_validate_tells_its_cases(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    package = clone(tiny_package(tmp_path_factory), tmp_path / "package")
    progress = HeardProgress()
    report = validate(package, checkpoint, progress=progress, kernels="native")
    names = [stage.partition(":")[0] for stage in progress.stages]
    cases = [f"{cell.column}, {cell.case}" for cell in report.cells]
    assert cases == [name for name in names if name in cases]
    for path in (package / "golden").iterdir():
        path.unlink()
    (package / "golden").rmdir()
    progress = HeardProgress()
    write_golden_vectors(package, checkpoint, progress)
    assert progress.stages == [
        "checking that the weights are finite",
        "computing golden vectors with the reference",
    ]
    assert progress.done[0] == progress.totals[0]
    progress = HeardProgress()
    validate(package, checkpoint, runtimes=["cpp"], clients={"cpp": "false"}, progress=progress)
    assert progress.stages[-1] == "cpp: waiting for the client"


# What the command line shows


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, None, "bytes", 7.4), "7 s"),
        ((0, 13_800_000_000, "bytes", 0.1), "0 bytes of 13.8 GB"),
        ((1_380_000_000, 13_800_000_000, "bytes", 10.0), "1.4 GB of 13.8 GB, 1 min 30 s left"),
        ((3, 12, "steps", 2.0), "3 of 12, 6 s left"),
        ((12, 12, "steps", 2.0), "12 of 12, 0 s left"),
    ],
)
def test_the_status_says_what_is_done_and_what_is_left(
    arguments: tuple[int, int, str, float], expected: str
) -> None:
    assert status(*arguments) == expected  # type: ignore[arg-type]  # literals in a list of cases


def test_a_line_is_drawn_anew_and_erased() -> None:
    stream = io.StringIO()
    with Display(stream, live=True, verbose=False) as display:
        display.begin("copying", 100)
        display.advance(50)
        deadline = time.monotonic() + 5
        while "50 bytes of 100 bytes" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        display.clear()
        display.begin("tracing")
    text = stream.getvalue()
    assert "\n" not in text
    assert f"{ERASE}copying: 50 bytes of 100 bytes" in text
    assert text.endswith(ERASE)
    assert not any(thread.name == "progress" for thread in threading.enumerate())


def test_nothing_is_shown_off_a_terminal_unless_verbose(checkpoint: Path, tmp_path: Path) -> None:
    for more, shown in (((), False), (("--verbose",), True)):
        arguments = [
            "export",
            str(checkpoint),
            "--output",
            str(tmp_path / f"package{len(more)}"),
            *more,
        ]
        result = CliRunner().invoke(main, arguments, prog_name="gptoss-onnx")
        assert result.exit_code == 0
        assert bool(result.stderr) == shown
    lines = result.stderr.splitlines()
    timed = [line for line in lines if re.fullmatch(r".*: \d+\.\d s(, [\d.]+ \w+)?", line)]
    assert [line.partition(":")[0] for line in timed] == [
        "loading PyTorch",
        "checking that the weights are finite",
        "tracing 2 of 2 layers",
        "checking and writing the graph",
        "computing golden vectors with the reference",
    ]
    assert ERASE not in result.stderr


def test_a_warning_gets_a_line_of_its_own() -> None:
    """A log record comes while a line is drawn: the line makes room for it, and comes back."""
    code = (
        "import logging, click\n"
        "from gptoss_onnx.cli.application import main\n"
        "from gptoss_onnx.cli.progress import progress_on_stderr\n"
        "@main.command()\n"
        "def work():\n"
        "    with progress_on_stderr() as display:\n"
        "        display.begin('working')\n"
        "        logging.getLogger('gptoss_onnx.x').warning('take care')\n"
        "main(['work'])\n"
    )
    assert f"{ERASE}working: 0 s{ERASE}take care\r\n" in on_a_terminal(["-c", code])


def test_a_terminal_sees_the_stages(checkpoint: Path, tmp_path: Path) -> None:
    text = on_a_terminal(["-c", CODE, "make-checkpoint", "tiny", str(tmp_path / "made")])
    assert f"{ERASE}loading PyTorch: 0 s" in text
    assert text.endswith(ERASE)


def on_a_terminal(arguments: list[str]) -> str:
    """Run Python with a terminal for its stderr; returns what it showed there."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *arguments], stderr=slave, stdout=subprocess.DEVNULL
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait() == 0, shown
    os.close(master)
    return shown.decode()
