"""TemplateProcess: render a stranger's template in a process of its own, within limits; see
`template_worker`.
"""

import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptoss_onnx.errors import InputError, PackageError, RuntimeUnavailable
from gptoss_onnx.json_text import printable

WORKER = Path(__file__).with_name("template_worker.py")
# for one answer; the worker's own limit counts the seconds it computes, and mostly comes first
SECONDS = 5.0
LONGEST_ANSWER = 200_000_000  # bytes: of the longest text, each character escaped
_NEEDS = ("jinja2", "markupsafe")


class TemplateProcess:
    """One template, compiled; its process starts when it is needed and ends with this object.

    Threads may share it; they take turns.
    """

    def __init__(self, source: str, origin: Path) -> None:
        """Compile the template; raises PackageError if it does not compile within the limits."""
        self._source, self._origin = source, origin
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process id: after a fork the child must not read the parent's answers
        with self._turn:
            self._start()

    def render(self, given: Mapping[str, Any]) -> str:
        """Return the text for these variables, which must be plain JSON.

        Raises InputError when the template refuses them or fails on them, and PackageError when it
        goes beyond its limits on time, memory and length.
        """
        with self._turn:
            if not self._is_running():
                self._start()
            return self._ask({"given": given})

    def _is_running(self) -> bool:
        process = self._process
        return process is not None and self._owner == os.getpid() and process.poll() is None

    def _start(self) -> None:
        if not sys.executable:
            raise RuntimeUnavailable(
                "chat templates: found no Python program to run them with (sys.executable)"
            )
        command = [sys.executable, "-I", str(WORKER), *_folders()]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C on the terminal is for us alone
        )
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _stop, self._process, self._owner)
        self._ask({"source": self._source})

    def _ask(self, request: Mapping[str, Any]) -> str:
        try:
            answer = self._exchange(json.dumps(request).encode() + b"\n")
        except BaseException:
            self._end()  # whatever it still says would answer the wrong question
            raise
        kind, message = answer.get("error"), printable(str(answer.get("message", "")))
        if kind is None:
            text = answer["text"]
            assert isinstance(text, str)
            return text
        if kind == "syntax":
            raise PackageError(
                f"{self._origin}: not a Jinja template ({message}); export with a corrected one"
            )
        if kind == "refused":
            raise InputError(f"{self._origin}: refuses these messages: {message}")
        if kind == "failed":
            raise InputError(f"{self._origin}: fails on these messages: {message}")
        if kind == "long":
            raise self._beyond(message)
        self._end()  # what memory it still holds is not known
        raise self._beyond("needs more memory than it is given, 768 MiB")

    def _exchange(self, line: bytes) -> dict[str, Any]:
        """Send one line and return what one line answers; raises PackageError when none comes in
        time.
        """
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
            ready, _, _ = select.select(
                [process.stdout], [], [], max(0.0, deadline - time.monotonic())
            )
            piece = os.read(process.stdout.fileno(), 1 << 20) if ready else b""
            if not ready:
                raise self._beyond(f"gave no answer within {SECONDS:.0f} s")
            if not piece:
                raise self._beyond(
                    "ended the process that ran it: found no answer within its time and memory"
                )
            received += piece
            if len(received) > LONGEST_ANSWER:
                raise self._beyond("found too long an answer")
        answer = json.loads(received)
        assert isinstance(answer, dict)
        return answer

    def _beyond(self, found: str) -> PackageError:
        return PackageError(
            f"{self._origin}: this template goes beyond its limits: {found}; export with a "
            "corrected one"
        )

    def _end(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._finalizer()
        self._process = None


def _folders() -> list[str]:
    """Return where the worker finds what it imports."""
    folders = []
    for name in _NEEDS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise RuntimeUnavailable(
                f"{name} is not installed: chat templates need pip install gptoss-onnx"
            )
        folders.append(str(Path(spec.origin).parent.parent))
    return folders


def _stop(process: "subprocess.Popen[bytes]", owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the owner ends, which goes on needing it
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # a request it will not read
                stream.close()
    process.wait()
