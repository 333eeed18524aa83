"""A runtime in a process of its own, in which `programs/serve.py` opens a file and answers."""

import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.json_text import printable
from gptoss_onnx.validation.columns import programs
from gptoss_onnx.validation.columns.process import QUIET_THREADS, Program

OPENING = 600.0  # seconds; OpenVINO compiles
CALL = 120.0  # seconds of one answer
MESSAGE_LIMIT = 1 << 30  # bytes: caches and logits of small models

Arrays = Mapping[str, NDArray[Any]]


class NotInstalledError(RuntimeUnavailable):
    """The Python that was asked has no such runtime."""


class Served:
    """A runtime that has opened a file; a context manager that ends its process.

    Args:
        name: of the runtime, as `serve.py` knows it.
        path: of the file or folder to open.
        python: the words that start a Python that has the runtime; this one if there are none.
        call: seconds that one answer may take.

    Attributes:
        version: the runtime's.

    Raises:
        NotInstalledError: that Python does not have the runtime.
        RuntimeUnavailable: the runtime refuses the file, or its process does not answer.
    """

    def __init__(
        self, name: str, path: Path, python: Sequence[str] = (), call: float = CALL
    ) -> None:
        script = Path(programs.__path__[0]) / "serve.py"
        words = [*(python or (sys.executable,)), str(script), name, str(path)]
        self._name, self._call = name, call
        self._program = Program(words, QUIET_THREADS)
        try:
            first = self._answer(b"", OPENING)
            if "missing" in first:
                where = python[0] if python else "this Python"
                said = printable(str(first["missing"])[:300])
                raise NotInstalledError(
                    f"{name} is not installed in {where} ({said}); name a Python that has it: "
                    f"--client {name}=PYTHON"
                )
            self.version = printable(str(first.get("version", ""))[:80].partition("-")[0])
        except BaseException:
            self.close()
            raise

    def ask(self, request: Arrays) -> dict[str, NDArray[Any]]:
        """Return the answer to a request.

        Raises:
            RuntimeUnavailable: the runtime failed, its process ended, or no answer came in time.
        """
        packed = io.BytesIO()
        np.savez(packed, **request)  # type: ignore[arg-type]  # its stub takes a flag for an array
        return self._answer(packed.getvalue(), self._call)

    def close(self) -> None:
        """End the process."""
        self._program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, request: bytes, seconds: float) -> dict[str, NDArray[Any]]:
        try:
            answer = self._program.answer(request, seconds, MESSAGE_LIMIT)
            with np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
                found = dict(arrays)
        except RuntimeUnavailable as error:
            raise RuntimeUnavailable(f"{self._name}: {error}") from error
        except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
            raise RuntimeUnavailable(f"{self._name}: its answer holds no arrays") from error
        if "error" in found:
            raise RuntimeUnavailable(f"{self._name}: {printable(str(found['error'])[:600])}")
        return found
