"""A model that runs in a process of its own and is timed from another: the same few commands for every runtime.

A worker reads one JSON command a line from stdin and answers each with one JSON line on stdout; see `Model`.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Model(Protocol):
    """What a worker serves. All tokens are random: repeated ones would repeat their experts and flatter the caches."""

    def prefill(self, tokens: int) -> None:
        """Forget everything, then run `tokens` tokens in one call and compute the last one's logits."""

    def fill(self, tokens: int) -> None:
        """Bring the context to `tokens` tokens."""

    def step(self) -> None:
        """Run one token and compute its logits."""


def serve(model: Model) -> None:
    """Answer commands until stdin ends: {"do": name, "tokens": count} → {"seconds": s, "faults": major faults}."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        arguments = [command["tokens"]] if "tokens" in command else []
        faults, start = _major_faults(), time.perf_counter()
        getattr(model, command["do"])(*arguments)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "faults": _major_faults() - faults}), flush=True)


class Worker:
    """The other end: a running worker process."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        start = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self._answer()
        self.opened_in = time.perf_counter() - start

    def do(self, name: str, **arguments: int) -> tuple[float, int]:
        """Run one command; return its seconds and major page faults."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["faults"]

    def anonymous_bytes(self) -> int:
        """Return the process's anonymous memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
        return int(kilobytes) * 1024

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"worker ended with exit status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _major_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
