"""`gptoss-onnx serve` in a process of its own, as a person starts it."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from support.command_line import CODE

READY = "ready"
_URL = re.compile(r"^page +(http://\S+)$", re.MULTILINE)


class Served:
    """A server that runs.

    Attributes:
        url: where it is.
        greeting: all that it said until it was ready.
    """

    def __init__(self, process: subprocess.Popen[str], greeting: str) -> None:
        self.process, self.greeting = process, greeting
        found = _URL.search(greeting)
        assert found, greeting
        self.url = found[1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, wait for the end, and return the exit code and what stderr said."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextmanager
def served(
    package: Path, *arguments: object, python: str | Path = sys.executable
) -> Iterator[Served]:
    """Serve a package on a free port, and kill the server at the end if it still runs."""
    command = [python, "-c", CODE, "serve", package, "--port", 0, "--threads", 1]
    process = subprocess.Popen(
        [str(word) for word in (*command, *arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout
            yield Served(process, _greeting(process, process.stdout))
        finally:
            process.kill()


def _greeting(process: subprocess.Popen[str], output: IO[str]) -> str:
    lines = []
    for line in output:
        lines.append(line)
        if line.startswith(READY):
            return "".join(lines)
    assert process.stderr
    raise AssertionError(f"the server ended before it was ready: {process.stderr.read()}")
