"""`generate` on token ids and plain texts: what is printed where, how tokens are chosen, and where
a text ends.
"""

import json
import os
from pathlib import Path

from support.command_line import done, in_process_of_its_own, loaded_at_exit, run
from support.tiny_package import LONGEST, clone


def test_generate_streams_text_and_nothing_else(package: Path) -> None:
    code = loaded_at_exit(("torch", "onnx", "onnxscript"), "stderr")
    arguments = ("generate", package, "--prompt", "Grüße", "--max-new-tokens", 12)
    result = in_process_of_its_own(*arguments, code=code, env={**os.environ, "PYTHONUTF8": "1"})
    assert (result.returncode, result.stderr) == (0, "[]\n")
    answer = json.loads(done(*arguments, "--json"))
    assert result.stdout == answer["text"] + "\n" * (not answer["text"].endswith("\n"))
    assert (len(answer["tokens"]), answer["finish_reason"]) == (12, "length")
    timings = answer["timings"]
    assert (timings["prompt_tokens"], timings["new_tokens"]) == (len("Grüße".encode()), 12)
    assert min(value for value in timings.values()) > 0
    assert (answer["kernels"], answer["activations"], answer["provider"]) == (
        "native",
        "exact",
        "cpu",
    )


def test_generate_prints_ids_without_a_tokenizer(package: Path, tmp_path: Path) -> None:
    bare = clone(package, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    arguments = ("--prompt-tokens", "1, 2,3", "--max-new-tokens", 5)
    answer = json.loads(done("generate", bare, *arguments, "--json"))
    assert answer["text"] is None
    assert done("generate", bare, *arguments) == ",".join(map(str, answer["tokens"])) + "\n"
    assert json.loads(done("generate", package, *arguments, "--json"))["tokens"] == answer["tokens"]


def test_generate_chat_applies_the_template(package: Path) -> None:
    chat = ("--prompt", "hi", "--chat", "--system", "be brief")
    rendered = ("--prompt", "[system]be brief[user]hi[assistant]")
    more = ("--max-new-tokens", 6, "--json")
    answers = [
        json.loads(done("generate", package, *prompt, *more))["tokens"]
        for prompt in (chat, rendered)
    ]
    assert answers[0] == answers[1]


def test_generate_samples_reproducibly(package: Path) -> None:
    def tokens(seed: int) -> list[int]:
        sampling = (
            "--temperature",
            1.5,
            "--top-k",
            50,
            "--top-p",
            0.9,
            "--min-p",
            0.01,
            "--repetition-penalty",
            1.1,
        )
        text = done(
            "generate",
            package,
            "--prompt",
            "x",
            "--max-new-tokens",
            8,
            *sampling,
            "--seed",
            seed,
            "--json",
        )
        found: list[int] = json.loads(text)["tokens"]
        return found

    assert tokens(1) == tokens(1) != tokens(2)


def test_generate_stops_before_a_stop_text(package: Path) -> None:
    arguments = (
        "generate",
        package,
        "--prompt",
        "x",
        "-n",
        128,
        "--temperature",
        2,
        "--seed",
        3,
        "--json",
    )
    text = json.loads(done(*arguments))["text"]
    stop = next(letter for letter in text[2:] if letter not in text[:2] and letter != "\ufffd")
    answer = json.loads(done(*arguments, "--stop", stop, "--stop", "never said"))
    assert (answer["text"], answer["finish_reason"]) == (text[: text.index(stop)], "stop")


def test_generate_ends_where_the_model_does(package: Path) -> None:
    ids = ",".join(["7"] * (LONGEST - 2))
    answer = json.loads(
        done("generate", package, "--prompt-tokens", ids, "--max-new-tokens", 99, "--json")
    )
    # the last one has not been run
    assert (len(answer["tokens"]), answer["finish_reason"]) == (3, "length")


def test_generate_tells_timings_where_asked(package: Path) -> None:
    result = run("generate", package, "--prompt", "x", "--max-new-tokens", 2, "--verbose")
    assert "native kernels" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("finished: length; loaded in ")
    assert "tokens/s" in result.stderr
    assert "tokens/s" not in result.stdout
