"""StageProcess: the process that runs one stage, as the staged session sees it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.errors import GptOssError, InputError, PackageError, RuntimeUnavailable
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.closing import Closing
from gptoss_onnx.runtime.stages.messages import Message, MessageError, receive, send
from gptoss_onnx.runtime.target import RunningKernels

_ERRORS: dict[str, type[GptOssError]] = {
    kind.__name__: kind for kind in (InputError, PackageError, RuntimeUnavailable)
}
_WORKER = "gptoss_onnx.runtime.stages.worker"
_LAST_SECONDS = 1.0  # for a process that has closed its side, to end by itself
# Threads that wait for work sleep: the stages take turns on the same cores.
_QUIET = {"OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class StageOptions:
    """How every stage runs; see `Session.open`."""

    kernels: Kernels
    activations: Activations
    threads: int | None


class StageProcess(Closing):
    """A process that has opened one stage; a context manager that ends it.

    Threads may share it; they take turns.

    Attributes:
        stage: which layers it has.
        dropped: numbers of caches that nobody has any more. Any thread may add to it at any time;
            the process hears of them with the next message.
    """

    def __init__(self, package: Package, options: StageOptions) -> None:
        """Start it, and tell it what to open; `ready` waits for the answer.

        Raises RuntimeUnavailable if it cannot be started.
        """
        stage = package.manifest.stage
        assert stage is not None
        self.stage = stage
        self._name = f"{package.folder} ({stage})"
        self.dropped: deque[int] = deque()
        self._turn = threading.Lock()
        self._gone: GptOssError | None = None
        self._link, theirs = socket.socketpair()
        with theirs:
            self._process = self._start(theirs.fileno())
        self._end = weakref.finalize(self, _end, self._process, self._link, os.getpid())
        with suppress(MessageError):  # it has ended, as `ready` will tell
            send(self._link, Message({"folder": str(package.folder), **asdict(options)}))

    def _start(self, link: int) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER, str(link)],
                pass_fds=(link,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**_QUIET, **os.environ},
                start_new_session=True,  # Ctrl-C on the terminal is for us alone
            )
        except OSError as error:
            raise RuntimeUnavailable(f"{self._name}: cannot be started ({error})") from error

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def ready(self) -> RunningKernels:
        """Wait until the package is open; returns which kernels run it.

        Raises what opening it does, and RuntimeUnavailable if the process ends.
        """
        with self._turn:
            kernels: RunningKernels = self._answer().fields["kernels"]
            return kernels

    def ask(
        self, what: str, arrays: Sequence[NDArray[Any]] = (), **fields: int | None
    ) -> tuple[NDArray[Any], ...]:
        """Let the process do something; returns the arrays that it answers with.

        Raises what that raises there, RuntimeUnavailable if the process has ended, and InputError
        once it was closed.
        """
        with self._turn:
            if self._gone is not None:
                raise type(self._gone)(*self._gone.args)
            dropped = [self.dropped.popleft() for _ in range(len(self.dropped))]
            message = Message({"what": what, "dropped": dropped, **fields}, tuple(arrays))
            with suppress(MessageError):  # the answer tells why
                send(self._link, message)
            return self._answer().arrays

    def close(self) -> None:
        """End the process; what another thread asks of it at that moment raises
        RuntimeUnavailable.
        """
        if self._gone is None:
            self._gone = InputError(
                "session: found it closed, expected an open one; start the stages again"
            )
        self._end()

    def _answer(self) -> Message:
        try:
            answer = receive(self._link)
        except MessageError as error:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_SECONDS)
            self._end()
            self._gone = RuntimeUnavailable(
                f"{self._name}: its process ended ({_how(self._process.returncode)}): start the "
                "stages again"
            )
            raise self._gone from error
        except BaseException:  # whatever it still says would answer the wrong question
            self._gone = RuntimeUnavailable(
                f"{self._name}: a call was cut off: start the stages again"
            )
            self._end()
            raise
        kind = answer.fields.get("error")
        if kind is not None:
            raise _ERRORS[kind](answer.fields["message"])
        return answer


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def _end(process: "subprocess.Popen[bytes]", link: socket.socket, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the owner ends, which goes on needing it
    # Shut down, not only closed: another thread may wait in it.
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    process.kill()
    process.wait()
    link.close()
