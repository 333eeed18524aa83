"""The command line does what its help says: results on stdout, everything else on stderr, exit
codes for scripts.
"""

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.testing import Result

from gptoss_onnx.cli import main
from gptoss_onnx.extras import install_command
from gptoss_onnx.manifest import Manifest
from support.command_line import CODE, done, in_process_of_its_own, loaded_at_exit, run

# An export whose package waits a minute before it appears: on a busy machine it might be done.
WAITING = f"""
import pathlib, time
replace = pathlib.Path.replace
pathlib.Path.replace = lambda *paths: time.sleep(60) or replace(*paths)
{CODE}"""
HEAVY = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy", "tokenizers")


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    result = in_process_of_its_own("--help", code=loaded_at_exit(HEAVY, "stdout"))
    assert (result.returncode, result.stderr) == (0, "")
    for command in (
        "export",
        "inspect",
        "generate",
        "serve",
        "validate",
        "bench",
        "make-checkpoint",
    ):
        assert command in result.stdout
    assert result.stdout.endswith("[]\n")


def test_the_entry_point_is_the_command() -> None:
    (entry,) = metadata.entry_points(group="console_scripts", name="gptoss-onnx")
    assert entry.load() is main
    assert done("--version").split()[-1] == metadata.version("gptoss-onnx")


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "x", "--output", "y", "--experts", "packed"),
        ("make-checkpoint", "tiny", "x", "--layout", "gguf"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_what_is_not_built_yet_is_not_accepted(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *flags: str) -> Result:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(main.commands["make-checkpoint"], "callback", lambda **_: fail())
    return run("make-checkpoint", "tiny", "unused", *flags)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "error: out of memory: free some, or ask for less"),
        (
            OSError(28, "No space left on device", "there"),
            2,
            "error: there: No space left on device; free some space",
        ),
        (
            PermissionError(13, "Permission denied", "x"),
            2,
            "error: x: Permission denied; check its permissions",
        ),
        (ZeroDivisionError("of ours"), 2, "error: unexpected ZeroDivisionError: of ours (a bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    result = _failing(monkeypatch, error)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.strip().startswith(line)
    assert len(result.stderr.strip().splitlines()) == 1
    result = _failing(monkeypatch, error, "--verbose")
    assert result.exit_code == code
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(line)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in [name for name in sys.modules if name.startswith("gptoss_onnx.exporter")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    result = run("export", tmp_path, "--output", tmp_path / "x")
    assert result.exit_code == 2
    command = install_command("export")  # as it works where this copy of the project lies
    assert result.stderr == f"error: onnx_ir is not installed: this command needs {command}\n"


def test_a_reader_that_goes_away_is_no_error(package: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    result = in_process_of_its_own("inspect", package, stdout=write)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_below_stdout_is_an_error(package: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = in_process_of_its_own("inspect", package, stdout=full)
    assert result.returncode == 2
    assert (
        result.stderr == "error: No space left on device; free some space or choose another disk\n"
    )


def test_inspect_needs_neither_torch_nor_onnxruntime(package: Path) -> None:
    heavy = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers")
    result = in_process_of_its_own("inspect", package, code=loaded_at_exit(heavy, "stderr"))
    assert (result.returncode, result.stderr) == (0, "[]\n")
    assert Manifest.read(package).graph in result.stdout


def test_sigterm_removes_what_an_export_had_begun(checkpoint: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        WAITING,
        "export",
        str(checkpoint),
        "--output",
        str(tmp_path / "package"),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        # the staging folder is there, with the first file
        while not list(tmp_path.glob(".*/*.safetensors")):
            time.sleep(0.02)
        process.terminate()
        assert process.wait() == 143
    assert not list(tmp_path.iterdir())


def test_a_sigterm_that_a_destructor_swallows_comes_again() -> None:
    code = """
import os, signal, time
from gptoss_onnx.cli.application import exit_on_sigterm

class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

exit_on_sigterm()
Swallowing()
print("swallowed", flush=True)
time.sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (143, "swallowed\n")


def test_what_cleans_up_after_a_sigterm_may_take_long() -> None:
    code = """
import contextlib, os, signal, time
from gptoss_onnx.cli import application

application.AGAIN_SECONDS = 0.05

def slowly(what):
    try:
        int("none")
    except ValueError:
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            time.sleep(0.01)
    print(what, flush=True)

class Closing:
    def __enter__(self):
        pass

    def __exit__(self, *error):
        slowly("closed")

@contextlib.contextmanager
def removing():
    try:
        yield
    finally:
        slowly("removed")

application.exit_on_sigterm()
with contextlib.ExitStack() as stack:
    stack.callback(slowly, "called")
    with Closing(), removing():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (143, "removed\nclosed\ncalled\n"), done.stderr


def test_the_bare_command_shows_the_help() -> None:
    assert done() == done("--help")
    assert "make-checkpoint" in done()


def test_export_groups_its_options_and_says_which_go_together() -> None:
    text = done("export", "--help")
    headings = [
        "The package:",
        "What the graph is made for:",
        "What becomes of the weights:",
        "A checkpoint of the",
    ]
    places = [
        text.index(heading)
        for heading in (*headings, "Other options:", "Which options go together:")
    ]
    assert places == sorted(places)
    for option in main.get_command(click.Context(main), "export").params:
        if isinstance(option, click.Option):
            assert text.count(f"\n  {option.opts[0]} ") == 1 or option.name in (
                "target",
                "weights",
                "help",
                "verbose",
            )
    assert "--target ort --provider cuda" in text[places[-1] :]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_what_the_help_says(shell: str) -> None:
    variable = f"_GPTOSS_ONNX_COMPLETE={shell}_source"
    assert variable in done("--help")
    name, value = variable.split("=")
    result = in_process_of_its_own(env={**os.environ, name: value})
    assert result.returncode == 0, result.stderr
    assert "gptoss-onnx" in result.stdout
    words = {"COMP_WORDS": "gptoss-onnx ex", "COMP_CWORD": "1", name: "bash_complete"}
    assert "export" in in_process_of_its_own(env={**os.environ, **words}).stdout
