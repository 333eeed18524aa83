"""GrammarProcess: try a stranger's schema in a process of its own, within limits; see
`grammar_worker`.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llguidance

from gptoss_onnx.errors import InputError, RuntimeUnavailable

WORKER = Path(__file__).with_name("grammar_worker.py")
# for one answer; the worker's own limit counts the seconds it computes, and mostly comes first
SECONDS = 10.0
_LONGEST_ANSWER = 100_000  # bytes


class GrammarProcess:
    """Tries grammars one after the other; its process starts when it is needed and ends with this
    object.

    Threads may share it; they take turns.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process id: after a fork the child must not read the parent's answers

    def problem(self, grammars: Sequence[str], limits: Mapping[str, Any], where: str) -> str:
        """Return why one of the grammars does not compile; empty where all do.

        Raises InputError, which names `where`, for grammars that take too much time or memory.
        """
        line = json.dumps({"grammars": list(grammars), "limits": dict(limits)}).encode() + b"\n"
        with self._turn:
            if not self._is_running():
                self._start()
            try:
                return str(json.loads(self._exchange(line, where))["error"])
            except BaseException:
                self._end()  # whatever it still says would answer the wrong question
                raise

    def close(self) -> None:
        """End the process; it starts again when it is needed."""
        with self._turn:
            self._end()

    def _is_running(self) -> bool:
        process = self._process
        return process is not None and self._owner == os.getpid() and process.poll() is None

    def _start(self) -> None:
        if not sys.executable:
            raise RuntimeUnavailable(
                "schemas: found no Python program to try them with (sys.executable)"
            )
        folder = str(Path(llguidance.__file__).parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C on the terminal is for us alone
        )
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _stop, self._process, self._owner)

    def _exchange(self, line: bytes, where: str) -> bytes:
        """Send one line and return the line that answers it."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + SECONDS
        with contextlib.suppress(BrokenPipeError):  # it has ended, as reading will tell
            process.stdin.write(line)
            process.stdin.flush()
        received = bytearray()
        while not received.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([process.stdout], [], [], left)
            piece = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not piece or len(received) > _LONGEST_ANSWER:
                raise InputError(
                    f"{where}: cannot be enforced (it takes too much time or memory to compile); "
                    "simplify it"
                )
            received += piece
        return bytes(received)

    def _end(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._finalizer()
        self._process = None


def _stop(process: "subprocess.Popen[bytes]", owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the owner ends, which goes on needing it
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # a request it will not read
                stream.close()
    process.wait()
