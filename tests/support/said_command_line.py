"""A package that says what a test has written down, and the command line on it."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import Result

from gptoss_onnx.runtime import Tokenizer
from support import command_line
from support.command_line import CODE
from support.harmony_tokenizer import write_harmony_tokenizer
from support.said_package import write_said_package

WHY = [{"role": "user", "content": "Why?"}]
THOUGHT = "<|channel|>analysis<|message|>User asks 为什么.<|end|><|start|>assistant"
ANSWER = THOUGHT + "<|channel|>final<|message|>Because 😀.<|return|>"
AGAIN = [*WHY, {"role": "assistant", "content": "Because 😀."}, {"role": "user", "content": "And?"}]
SLASH = [{"role": "user", "content": "/slash"}]
STEERS = "\x1b[31mred\x07\u202e\ttab\nline"


def said(folder: Path, **options: Any) -> Path:
    """Write the package below `folder`; options as of `write_said_package`."""
    source = write_harmony_tokenizer(folder / "tokenizer")
    tokenizer = Tokenizer.open(source)

    def chat(
        messages: list[dict[str, Any]], answer: str, **variables: str
    ) -> tuple[list[int], list[int]]:
        return tokenizer.encode_chat(messages, variables=variables), tokenizer.encode(answer)

    call = '<|channel|>commentary to=functions.tide <|constrain|>json<|message|>{"h": 3}<|call|>'
    look = "<|channel|>commentary<|message|>I look.<|end|>"
    two = look + "<|start|>assistant<|channel|>final<|message|>Seen.<|return|>"
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
    """Run a command line on one thread."""
    return command_line.run(*arguments, "--threads", "1", **options)


def done(*arguments: object, **options: Any) -> str:
    """Run one that succeeds without a word on stderr, and return its stdout."""
    return command_line.done(*arguments, "--threads", "1", **options)


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
