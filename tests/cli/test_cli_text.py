"""`generate` on text: sources of prompts, thoughts apart from answers, stops, and terminals."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.said_command_line import CODE, STEERS, done, in_terminal, run, said


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return said(tmp_path_factory.mktemp("said"))


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
    warning = "only the limit on new tokens ends this text"
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
