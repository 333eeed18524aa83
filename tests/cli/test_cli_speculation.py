"""`--speculate`, `--draft` and `--prompt-cache`: the same text, told what came of it, and mistakes
in one line.
"""

import json
from pathlib import Path
from typing import Any

from support.command_line import done, run
from support.tiny_package import clone

REPEATED = ("--prompt", "one two three, one two three, one two", "-n", 40)


def answer(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done("generate", *arguments, "--json"))
    return found


def test_the_same_text(package: Path) -> None:
    plain = answer(package, *REPEATED)
    assert "speculated" not in plain
    for options in (("--speculate", 8), ("--speculate", 3, "--draft", package)):
        guessing = answer(package, *REPEATED, *options)
        assert guessing["tokens"] == plain["tokens"]
        found = guessing["speculated"]
        assert found["calls"] + found["accepted"] == 39
        assert found["drafted"] >= found["accepted"]


def test_it_tells_what_came_of_it(package: Path) -> None:
    result = run("generate", package, *REPEATED, "--speculate", 8, "--verbose")
    assert "guessed tokens were right, in " in result.stderr.splitlines()[-1]


def test_a_chat_that_guesses(package: Path) -> None:
    lines = "hello hello hello\nagain again again\n"
    arguments = ("chat", package, "-n", 12)
    plain = run(*arguments, input=lines).stdout
    assert run(*arguments, "--speculate", 6, input=lines).stdout == plain
    draft = ("--speculate", 6, "--draft", package)
    assert run(*arguments, *draft, input=lines).stdout == plain


def test_a_draft_that_cannot_be_used(package: Path, tmp_path: Path) -> None:
    other = clone(package, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["vocab_size"] -= 1
    (other / "manifest.json").write_text(json.dumps(manifest))
    for options, message in (
        (("--draft", package), "--draft guesses tokens: add --speculate"),
        (("--speculate", 65), "65 is not in the range"),
        (("--speculate", 4, "--draft", tmp_path / "missing"), "missing: not a folder"),
        (("--speculate", 4, "--draft", other), "draft: found a vocabulary of 319 tokens"),
    ):
        for command in (("generate", package, "--prompt", "x"), ("chat", package)):
            result = run(*command, *options, input="")
            assert result.exit_code == 2
            assert message in result.stderr.splitlines()[-1]


def test_a_prompt_is_kept(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt"
    system = "You answer in as few words as you can. " * 2
    chat = ("--chat", "--system", system, "-n", 9, "--prompt")
    for question, cached in (("why?", False), ("why?", True), ("how, if at all?", True)):
        plain = answer(package, *chat, question)
        kept = answer(package, *chat, question, "--prompt-cache", file)
        assert kept["tokens"] == plain["tokens"]
        timings = kept["timings"]
        assert timings["prompt_tokens"] == plain["timings"]["prompt_tokens"]
        assert (timings["cached_tokens"] > len(system)) == cached
        assert timings["prefill_seconds"] > 0
    guessing = answer(package, *chat, "why?", "--prompt-cache", file, "--speculate", 4)
    assert guessing["tokens"] == answer(package, *chat, "why?")["tokens"]


def test_a_package_without_a_tokenizer(package: Path, tmp_path: Path) -> None:
    bare = clone(package, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    ids = (bare, "--prompt-tokens", "1,2,3,1,2", "-n", 20)
    plain = answer(*ids)
    for cached in (0, 4):
        kept = answer(*ids, "--prompt-cache", tmp_path / "file", "--speculate", 4)
        assert kept["tokens"] == plain["tokens"]
        assert kept["timings"]["cached_tokens"] == cached


def test_files_that_are_refused(package: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("my notes")
    for options, message in (
        (("--prompt-cache", tmp_path / "notes"), "notes: found 8 bytes with a header of"),
        (("--prompt-cache", tmp_path / "missing" / "file"), "found no such folder"),
    ):
        result = run("generate", package, "--prompt", "some text", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert (tmp_path / "notes").read_text() == "my notes"
