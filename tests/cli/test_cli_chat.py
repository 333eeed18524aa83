"""`chat`: turns, commands, notes, interrupts and terminals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from support.said_command_line import CODE, in_terminal, run, said

# The tiny model says all that it may within a second or two, which a busy machine can miss.
SLOWLY = f"""
import time
from gptoss_onnx.runtime import Session

def slowly(*arguments, forward=Session.forward, **options):
    time.sleep(0.01)
    return forward(*arguments, **options)

Session.forward = slowly
{CODE}"""
CHAT = (
    "Why?\nAnd?\n/undo\nAnd?\n/retry\n/clear\nWhy?\n"
    "\n/foo\n//slash\n/clear\n//slash\n/help\n/exit\nnever read\n"
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return said(tmp_path_factory.mktemp("said"))


def test_a_chat_by_pipe(package: Path) -> None:
    result = run("chat", package, "--hide-reasoning", "-n", 60, input=CHAT)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:5] == ["Because 😀.", "So.", "So.", "So.", "Because 😀."]
    assert lines[-1] == "Slash."
    notes = result.stderr.splitlines()
    assert notes[:3] == [
        "forgotten: And?",
        "forgotten: all messages",
        "error: /foo: found no such command; /help lists them",
    ]
    assert any(line.startswith("/undo ") for line in notes)
    assert "never read" not in result.stderr + result.stdout


def test_a_chat_shows_thoughts_and_takes_the_system_and_effort(package: Path) -> None:
    result = run("chat", package, input="Why?\n")
    assert (result.stdout, result.stderr) == ("Because 😀.\n", "User asks 为什么.\n")
    assert run("chat", package, "--reasoning-effort", "low", input="Why?\n").stdout == "Low.\n"
    assert (
        run("chat", package, "--system", "Be brief.", input="Why?\n/undo\n/clear\nWhy?").stdout
        == "Brief.\n" * 2
    )


def test_an_effort_that_the_template_passes_over_is_refused(demo_package: Package) -> None:
    for arguments in (
        ("generate", demo_package.folder, "--chat", "-p", "x"),
        ("chat", demo_package.folder),
    ):
        result = run(*arguments, "--reasoning-effort", "low")
        line = "--reasoning-effort: this package's chat template does not read it; leave it out"
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {line}\n")


def test_a_message_that_cannot_be_answered_leaves_the_chat_open(package: Path) -> None:
    result = run(
        "chat", package, "--hide-reasoning", input="/undo\n/retry\n" + "word " * 9000 + "\nWhy?\n"
    )
    assert result.stdout == "Because 😀.\n"
    first, second, third = result.stderr.splitlines()
    assert (
        first == second == "error: conversation: found no message of the user's yet, expected one"
    )
    assert "expected at most 4096, the longest this model takes" in third


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_ends_the_answer_and_not_the_chat(package: Path) -> None:
    command = [
        sys.executable,
        "-c",
        SLOWLY,
        "chat",
        str(package),
        "--threads",
        "1",
        "--hide-reasoning",
    ]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **streams) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"on\n")
        process.stdin.flush()
        assert process.stdout.read(4) == b"onzz"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all that runs below it gets it
        out, err = process.communicate(b"/undo\nWhy?\n", timeout=60)
    assert process.returncode == 0
    assert err.decode().splitlines()[:2] == ["interrupted; what was said is kept", "forgotten: on"]
    assert out.decode().endswith("\nBecause 😀.\n")
    assert out.count(b"z") < 3900


def test_a_chat_on_a_terminal(package: Path) -> None:
    shown = in_terminal("chat", package, lines="Why?\n/exit\n")
    assert "/help lists the commands" in shown
    assert "> " in shown
    assert "Because 😀." in shown
    assert "prompt tokens were in the cache)" in shown


def test_a_package_without_a_chat_is_refused(package: Path, tmp_path: Path) -> None:
    bare = said(tmp_path)
    (bare / "chat_template.jinja").unlink()
    result = run("chat", bare, input="Why?\n")
    assert result.exit_code == 2
    assert "found no chat template" in result.stderr
    (bare / "tokenizer.json").unlink()
    result = run("chat", bare, input="Why?\n")
    assert result.exit_code == 2
    assert "found no tokenizer.json" in result.stderr
