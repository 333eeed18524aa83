"""A model that runs in a process of its own and is timed from another: the same few commands for
every runtime.

A worker reads one JSON command a line from stdin and answers each with one JSON line on stdout; see
`Model`.
"""

import json
import random
import resource
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

BATCH = 512  # tokens of one call while a context is filled


class Model(Protocol):
    """What a worker serves."""

    def prefill(self, tokens: int) -> None:
        """Forget everything, then run `tokens` tokens in one call and compute the last one's
        logits.
        """

    def fill(self, tokens: int) -> None:
        """Bring the context to `tokens` tokens."""

    def extend(self, tokens: int) -> None:
        """Run `tokens` tokens after the context in one call, and compute the last one's logits."""

    def step(self) -> None:
        """Run one token and compute its logits."""


class Peer(ABC):
    """The Model of another runtime, which says how to forget and how to run tokens in one call.

    All tokens are random: repeated ones would repeat their experts and flatter the caches.
    """

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._random = random.Random(0)
        self._length = 0

    def prefill(self, tokens: int) -> None:
        """See Model."""
        self.forget()
        self._length = 0
        self._run_random(tokens)

    def fill(self, tokens: int) -> None:
        """See Model."""
        while self._length < tokens:
            self._run_random(min(BATCH, tokens - self._length))

    def extend(self, tokens: int) -> None:
        """See Model."""
        self._run_random(tokens)

    def step(self) -> None:
        """See Model."""
        self._run_random(1)

    @abstractmethod
    def forget(self) -> None:
        """Empty the context."""

    @abstractmethod
    def run(self, ids: list[int]) -> None:
        """Run tokens after the context, and compute the last one's logits."""

    def _run_random(self, tokens: int) -> None:
        self.run([self._random.randrange(self._vocabulary) for _ in range(tokens)])
        self._length += tokens


def serve(model: Model) -> None:
    """Answer commands until stdin ends: {"do": name, "tokens": count} → {"seconds": s, "faults":
    major faults}.
    """
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
        kilobytes = next(
            line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")
        )
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
