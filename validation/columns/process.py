"""Other programs, held to a time and to a number of bytes: one that is run to its end, and one that
answers again and again.

Whatever they started ends with them: each has a process group of its own.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.json_text import printable

# Of a process that computes: its idle threads sleep, since those of other libraries want the cores.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
PIECE = 1 << 16  # bytes read at once
ERRORS_KEPT = 4096  # last bytes of stderr, where a program says why it ended
LAST_PIECES = 16  # of stderr, read after the end: what a pipe can hold, and more
POLL = 0.01  # seconds between looks at a program that is about to end
LENGTH_BYTES = 8  # little-endian, before each message


@dataclass(frozen=True)
class Finished:
    """How a program ended, all of its stdout, and the last of its stderr."""

    code: int
    output: bytes
    errors: bytes

    def last_words(self) -> str:
        """Return the last line on stderr, or how it ended if there is none."""
        lines = [line for line in self.errors.decode(errors="replace").splitlines() if line.strip()]
        return printable(lines[-1].strip()[:300]) if lines else f"{_end(self.code)}, silently"


class Program:
    """A running program; a context manager that ends it.

    Args:
        command: its words.
        environment: variables beside those of this process.

    Raises:
        RuntimeUnavailable: it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._output, self._errors = bytearray(), bytearray()
        self._gone: str | None = None  # why it was ended
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise RuntimeUnavailable(f"{command[0]}: cannot be started ({error})") from error
        for pipe in self._pipes():
            os.set_blocking(pipe.fileno(), False)

    def finish(self, given: bytes, seconds: float, limit: int) -> Finished:
        """Write `given` to its stdin and wait for its end.

        Raises:
            RuntimeUnavailable: it takes longer than `seconds`, or prints more than `limit` bytes.
        """
        deadline = time.monotonic() + seconds
        self._exchange(given, lambda: False, seconds, limit, closing=True)
        if not self._reap(deadline):  # it closed its stdout and went on
            self._end(f"no end after {seconds:g} s")
            raise RuntimeUnavailable(str(self._gone))
        return Finished(self._process.returncode, bytes(self._output), bytes(self._errors))

    def answer(self, given: bytes, seconds: float, limit: int) -> bytes:
        """Send a message, unless it is empty, and return the next one that comes back.

        Raises:
            RuntimeUnavailable: none comes within `seconds`, it would have more than `limit` bytes,
                or the program has ended.
        """
        if self._gone is not None:
            raise RuntimeUnavailable(f"its process was ended before: {self._gone}")
        message = len(given).to_bytes(LENGTH_BYTES, "little") + given if given else b""

        def complete() -> bool:
            head = self._output[:LENGTH_BYTES]
            if len(head) < LENGTH_BYTES:
                return False
            length = int.from_bytes(head, "little")
            if length > limit:
                self._refuse_length(limit)
            return len(self._output) >= LENGTH_BYTES + length

        self._exchange(message, complete, seconds, limit + LENGTH_BYTES)
        if not complete():
            if not self._reap(time.monotonic() + 1):
                self._end("it closed its stdout")
            code = self._process.returncode
            self._gone = Finished(code, b"", bytes(self._errors)).last_words()
            raise RuntimeUnavailable(f"its process ended ({_end(code)}): {self._gone}")
        body = bytes(self._output[LENGTH_BYTES:])
        self._output.clear()
        return body

    def close(self) -> None:
        """End it, and all that it started."""
        self._end(self._gone or "closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(
        self,
        given: bytes,
        complete: Callable[[], bool],
        seconds: float,
        limit: int,
        closing: bool = False,
    ) -> None:
        """Write and read side by side until it is complete or stdout ends, so that neither side
        waits for the other for ever.
        """
        stdin, stdout, stderr = self._pipes()
        deadline = time.monotonic() + seconds
        left = memoryview(given)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ, self._output)
            selector.register(stderr, selectors.EVENT_READ, self._errors)
            if left or closing:
                selector.register(stdin, selectors.EVENT_WRITE)
            while not complete():
                remaining = deadline - time.monotonic()
                events = selector.select(remaining) if remaining > 0 else []
                if not events and time.monotonic() >= deadline:
                    self._end(f"no answer after {seconds:g} s")
                    raise RuntimeUnavailable(str(self._gone))
                for key, _ in events:
                    if key.fileobj is stdin:
                        left = _write(stdin, left)
                        if not left:
                            selector.unregister(stdin)
                            if closing:
                                with suppress(OSError):
                                    stdin.close()
                    elif not _read(key.fd, key.data):
                        selector.unregister(key.fileobj)
                        if key.fileobj is stdout:
                            return
                del self._errors[:-ERRORS_KEPT]
                if len(self._output) > limit:
                    self._refuse_length(limit)

    def _refuse_length(self, limit: int) -> None:
        self._end(f"it printed more than {limit} bytes")
        raise RuntimeUnavailable(str(self._gone))

    def _pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        return stdin, stdout, stderr

    def _reap(self, deadline: float) -> bool:
        """Wait for its end; false if that does not come in time.

        What it started ends while its number is still its own: later, that may be another's.
        """
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while os.waitid(os.P_PID, self._process.pid, flags) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL)
        self._kill()
        self._process.wait()
        self._read_last_words()
        return True

    def _read_last_words(self) -> None:
        """Read what stderr still holds of a process that has ended: its stdout may have ended
        first. A process that got away may write on for ever, so the pieces are counted.
        """
        _, _, stderr = self._pipes()
        for _ in range(LAST_PIECES):
            before = len(self._errors)
            if not _read(stderr.fileno(), self._errors) or len(self._errors) == before:
                break
        del self._errors[:-ERRORS_KEPT]

    def _end(self, why: str) -> None:
        self._gone = why
        if self._process.returncode is None:
            self._kill()
            self._process.wait()
        for pipe in self._pipes():
            with suppress(OSError):  # what could not be written any more
                pipe.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _write(pipe: IO[bytes], left: memoryview) -> memoryview:
    """Write what the pipe takes, and return what is left; nothing once nobody reads."""
    try:
        return left[os.write(pipe.fileno(), left[:PIECE]) :] if left else left
    except BlockingIOError:
        return left
    except OSError:
        return left[:0]


def _read(descriptor: int, into: bytearray) -> bool:
    """Append what there is; false at the end."""
    try:
        piece = os.read(descriptor, PIECE)
    except BlockingIOError:
        return True
    into += piece
    return bool(piece)


def _end(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"
