"""The chat example of the C++ client: it says what Python says, and obeys the rule of files."""

import contextlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Session, chat_messages
from support.cpp_client import Client, Limits, build_chat, run

pytestmark = [pytest.mark.cpp, pytest.mark.clients]


def test_the_chat_example_says_what_python_says(client: Client, demo_package: Package) -> None:
    message = "Tell me about the rain — «it’s» 日本\n"
    result = run(build_chat(), demo_package.folder, message, client.library)
    assert result.code == 0, result.err
    with Session.open(demo_package.folder, threads=1) as session:
        prompt = session.tokenizer.encode_chat(chat_messages(message, None))
        tokens = [*session.generate(prompt, max_new_tokens=200)]
        assert result.out == session.tokenizer.decode(tokens) + "\n"


def on_a_terminal(*words: str | Path) -> str:
    """Return what a program prints on a terminal."""
    ours, its = pty.openpty()
    with subprocess.Popen(list(map(str, words)), stdout=its, stderr=subprocess.DEVNULL) as process:
        os.close(its)
        said = b""
        with contextlib.suppress(OSError):  # the terminal is closed at the end
            while part := os.read(ours, 4096):
                said += part
        assert process.wait() == 0
    os.close(ours)
    return said.decode().replace("\r\n", "\n")


def test_the_chat_example_does_not_let_a_model_steer_a_terminal(
    client: Client, spoilt: Path
) -> None:
    message = "Tell me about the rain"
    file = spoilt / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    model = tokenizer["model"]
    # As byte-level tokens are written: ě is the byte 0x1B.
    word, forged = "Ġafraid", "Ġě[2Jafraid"
    model["vocab"][forged] = model["vocab"].pop(word)
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) != word]
    file.write_text(json.dumps(tokenizer))
    program = build_chat()
    piped = run(program, spoilt, message, client.library).out
    assert "am \x1b[2Jafraid" in piped  # a file gets the text as it is
    assert on_a_terminal(program, spoilt, message, client.library) == piped.replace("\x1b", "\\x1b")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_the_chat_example_obeys_the_rule_of_files(client: Client, spoilt: Path, name: str) -> None:
    manifest = json.loads((spoilt / "manifest.json").read_text())
    manifest["tokenizer_files"][0] = name
    (spoilt / "manifest.json").write_text(json.dumps(manifest))
    result = run(build_chat(), spoilt, "Hello", limits=Limits())
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert f"found '{name}', expected the name of a file in the package folder" in result.err


def test_the_chat_example_writes_nothing_into_the_package(client: Client, spoilt: Path) -> None:
    manifest = json.loads((spoilt / "manifest.json").read_text())
    manifest["tokenizer_files"].append("genai_config.json")
    (spoilt / "genai_config.json").write_text("{}")
    (spoilt / "manifest.json").write_text(json.dumps(manifest))
    result = run(build_chat(), spoilt, "Hello", client.library)
    assert result.code == 0, result.err
    assert (spoilt / "genai_config.json").read_text() == "{}"
    (spoilt / "tokenizer.json").unlink()
    os.mkfifo(spoilt / "tokenizer.json")
    assert (
        "tokenizer.json: found a FIFO, expected a regular file"
        in run(build_chat(), spoilt, "Hello").err
    )
