"""`generate` and `chat` on text: prompts and their places, thoughts apart from answers, stops,
terminals, and turns.
"""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gptoss_onnx.cli import main
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Tokenizer
from support.harmony_tokenizer import write_harmony_tokenizer
from support.said_package import write_said_package

CODE = "from gptoss_onnx.cli import main; main(prog_name='gptoss-onnx')"
WHY = [{"role": "user", "content": "Why?"}]
THOUGHT = "<|channel|>analysis<|message|>User asks 为什么.<|end|><|start|>assistant"
ANSWER = THOUGHT + "<|channel|>final<|message|>Because 😀.<|return|>"
AGAIN = [*WHY, {"role": "assistant", "content": "Because 😀."}, {"role": "user", "content": "And?"}]
SLASH = [{"role": "user", "content": "/slash"}]
STEERS = "\x1b[31mred\x07\u202e\ttab\nline"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return said(tmp_path_factory.mktemp("said"))


def said(folder: Path, **options: Any) -> Path:
    source = write_harmony_tokenizer(folder / "tokenizer")
    tokenizer = Tokenizer.open(source)

    def chat(
        messages: list[dict[str, Any]], answer: str, **variables: str
    ) -> tuple[list[int], list[int]]:
        return tokenizer.encode_chat(messages, variables=variables), tokenizer.encode(answer)

    call = '<|channel|>commentary to=functions.tide <|constrain|>json<|message|>{"h": 3}<|call|>'
    two = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|>Seen.<|return|>"
    scripts = [
        chat([{"role": "user", "content": "two"}], two),
        chat(WHY, ANSWER),
        chat(WHY, "<|channel|>final<|message|>Low.<|return|>", reasoning_effort="low"),
        chat(
            [{"role": "system", "content": "Be brief."}, *WHY],
            "<|channel|>final<|message|>Brief.<|return|>",
        ),
        chat(AGAIN, "<|channel|>final<|message|>So.<|return|>"),
        chat(SLASH, "<|channel|>final<|message|>Slash.<|return|>"),
        chat(
            [{"role": "user", "content": "tide"}],
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant" + call,
        ),
        chat([{"role": "user", "content": "on"}], "<|channel|>final<|message|>on"),
        (tokenizer.encode("Read"), tokenizer.encode(" on, the end<|end|>tail")),
        (tokenizer.encode("Line\n"), tokenizer.encode("two")),
        (tokenizer.encode("Steer"), tokenizer.encode(STEERS + "<|end|>")),
    ]
    return write_said_package(
        folder / "package", source, scripts, 340, lost=tokenizer.encode("z")[0], **options
    )


def run(*arguments: object, **options: Any) -> Result:
    text = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, [*text, "--threads", "1"], prog_name="gptoss-onnx", **options)


def done(*arguments: object, **options: Any) -> str:
    result = run(*arguments, **options)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_thoughts_go_to_stderr_and_the_answer_to_stdout(package: Path) -> None:
    result = run("generate", package, "--chat", "-p", "Why?")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "Because 😀.\n",
        "User asks 为什么.\n",
    )
    assert done("generate", package, "--chat", "-p", "Why?", "--hide-reasoning") == "Because 😀.\n"
    assert (
        done("generate", package, "--chat", "-p", "Why?", "--reasoning-effort", "low") == "Low.\n"
    )
    assert done("generate", package, "--chat", "-p", "Why?", "--system", "Be brief.") == "Brief.\n"


def test_messages_of_an_answer_stand_on_lines_of_their_own(package: Path) -> None:
    assert done("generate", package, "--chat", "-p", "two") == "I look.\nSeen.\n"
    assert (
        json.loads(done("generate", package, "--chat", "-p", "two", "--json"))["content"]
        == "I look.\nSeen."
    )


def test_json_holds_content_thoughts_and_calls_apart(package: Path) -> None:
    answer = json.loads(done("generate", package, "--chat", "-p", "Why?", "--json"))
    assert (answer["content"], answer["reasoning"], answer["tool_calls"]) == (
        "Because 😀.",
        "User asks 为什么.",
        [],
    )
    assert (answer["text"], answer["finish_reason"]) == ("Because 😀.", "stop")
    answer = json.loads(done("generate", package, "--chat", "-p", "tide", "--json"))
    assert answer["tool_calls"] == [{"recipient": "functions.tide", "arguments": '{"h": 3}'}]
    assert (answer["content"], answer["reasoning"]) == ("", "hm")
    result = run("generate", package, "--chat", "-p", "tide")
    assert (result.stdout, result.stderr) == ("", 'hm\n[functions.tide] {"h": 3}\n')
    assert "reasoning" not in json.loads(done("generate", package, "-p", "Read", "-n", 3, "--json"))


def test_prompts_come_from_the_line_a_file_or_stdin(package: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Line\n")
    assert done("generate", package, "--prompt-file", tmp_path / "prompt.txt", "-n", 3) == "two\n"
    assert done("generate", package, "--prompt-file", "-", "-n", 3, input="Line\n") == "two\n"
    os.mkfifo(tmp_path / "pipe")  # as bash's <(command) is one
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("Line\n",))
    writer.start()
    assert done("generate", package, "--prompt-file", tmp_path / "pipe", "-n", 3) == "two\n"
    writer.join()
    assert (
        done("generate", package, "--prompt-file", "-", "--chat", "--hide-reasoning", input="Why?")
        == "Because 😀.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--prompt-file", "-", "-p", "x"),
            "found --prompt and --prompt-file, expected one of them",
        ),
        (("--prompt-file", "missing"), "missing: found no such file, expected the prompt in it"),
        (("--prompt-file", "/dev/zero"), "/dev/zero: found a device, expected a regular file"),
        (("--prompt-file", "-"), "stdin: found no UTF-8 at byte 0, expected a text"),
        ((), "--prompt, --prompt-file and --prompt-tokens: found neither, expected one of them"),
        (
            ("-p", "x", "--reasoning-effort", "low"),
            "--reasoning-effort is part of a chat: add --chat",
        ),
        (
            ("-p", "x", "--stop-token", "<|ende|>"),
            "--stop-token: found '<|ende|>', expected a token id or a special",
        ),
        (("-p", "x", "--stop-token", "99999"), "found 99999, expected 0 to 339"),
        (("-p", "x", "--stop", "a<|end|>"), "holds the special token <|end|>"),
    ],
)
def test_mistakes_are_one_line(package: Path, arguments: tuple[str, ...], line: str) -> None:
    result = run("generate", package, *arguments, input=b"\xc3\xff")
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_special_tokens_stop_a_text(package: Path) -> None:
    for stop in (
        ("--stop", "<|end|>"),
        ("--stop-token", "<|end|>"),
        ("--stop-token", 6),
        ("--stop", "the", "--stop", "x"),
    ):
        answer = json.loads(done("generate", package, "-p", "Read", *stop, "--json"))
        assert answer["finish_reason"] == "stop"
        assert answer["text"] == (" on, the end" if stop[1] != "the" else " on, ")
    # Besides what ends an answer anyway.
    answer = json.loads(
        done("generate", package, "--chat", "-p", "Why?", "--stop-token", 339, "--json")
    )
    assert (answer["finish_reason"], answer["content"]) == ("stop", "Because 😀.")


def test_a_text_that_nothing_ends_is_told(package: Path, tmp_path: Path) -> None:
    warning = "nothing ends this text but the greatest number of tokens"
    result = run("generate", package, "-p", "Read")
    assert warning in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stdout) > 100
    ended = said(tmp_path, ends=6)
    assert done("generate", ended, "-p", "Read") == " on, the end\n"
    (package / "tokenizer.json").rename(tmp_path / "away")
    try:
        assert warning in run("generate", package, "--prompt-tokens", "1,2").stderr
    finally:
        (tmp_path / "away").rename(package / "tokenizer.json")


def test_timings_are_told_off_a_terminal_too(package: Path) -> None:
    result = run("generate", package, "-p", "Read", "-n", 3, "--verbose")
    assert result.stderr.splitlines()[-1].startswith("finished: length; loaded in ")
    result = run("chat", package, "--verbose", input="Why?\n")
    assert re.search(
        r"\n\(43 tokens in \d+\.\d\d s; 0 of \d+ prompt tokens were in the cache\)\n$",
        result.stderr,
    )


def in_terminal(*arguments: object, lines: str = "") -> str:
    """Run the command with a terminal as all three streams, and return what the terminal got."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", CODE, *map(str, arguments), "--threads", "1"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        os.write(ours, lines.encode())
        received = b""
        try:
            while piece := os.read(ours, 65536):
                received += piece
        except OSError:  # how Linux says that nobody holds the other end any more
            pass
        os.close(ours)
        assert process.wait() == 0
    return received.decode()


def test_a_terminal_is_not_steered_by_what_a_model_says(package: Path) -> None:
    arguments = ("generate", package, "-p", "Steer", "--stop-token", "<|end|>")
    shown = in_terminal(*arguments)
    assert shown.startswith("\\x1b[31mred\\x07\\u202e\ttab\r\nline\r\n")
    assert "finished: stop" in shown
    # A file gets what was said, to the letter.
    process = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)], capture_output=True, check=True
    )
    assert process.stdout.decode() == STEERS + "\n"


def test_thoughts_are_dim_on_a_terminal(package: Path) -> None:
    shown = in_terminal("generate", package, "--chat", "-p", "Why?")
    assert "\x1b[2mU\x1b[0m" in shown
    plain = shown.replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert plain.startswith("User asks 为什么.\r\nBecause 😀.\r\n")
    assert "Because 😀." in shown  # which is not dim


CHAT = "Why?\nAnd?\n/undo\nAnd?\n/retry\n/clear\nWhy?\n\n/foo\n//slash\n/clear\n//slash\n/help\n/exit\nnever read\n"


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
        line = "error: --reasoning-effort: this package's chat template does not read it; leave it out\n"
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", line)


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


def test_an_interrupt_ends_the_answer_and_not_the_chat(package: Path) -> None:
    command = [
        sys.executable,
        "-c",
        CODE,
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


def test_an_end_token_beyond_the_vocabulary_goes_with_a_stop_token(
    package: Path, tmp_path: Path
) -> None:
    """No token has such an id, so it ends nothing; it used to be refused beside --stop-token
    alone.
    """
    shutil.copytree(package, tmp_path / "package")
    (tmp_path / "package" / "generation_config.json").write_text('{"eos_token_id": [5000000]}')
    words = ("generate", tmp_path / "package", "-p", "Line\n", "-n", 3)
    assert done(*words, "--stop-token", 0) == done(*words)
