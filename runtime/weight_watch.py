"""WeightWatch: notice that weight files changed while a session has them mapped.

ONNX Runtime reads weights from their mapped files whenever it needs them. A file that is rewritten
in place silently changes the numbers, and one that is cut off kills the process with SIGBUS. Size
and modification time are compared with those at the beginning: a few microseconds, so sessions do
it before each text. What happens while a text is being generated goes unnoticed until the next one.
"""

import os
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gptoss_onnx.errors import PackageError

_AGAIN = "open the package again, or export it with --weights copy, which no training run rewrites"


@dataclass(frozen=True)
class _Watched:
    path: Path
    descriptor: int
    found: os.stat_result
    close: Callable[[], object]  # at most once, also when the watch is garbage


class WeightWatch:
    """The weight files of one session, held open so that the files looked at are the ones that are
    mapped.

    A file that another one has replaced under its name, or that was deleted, is still there for the
    session and has not changed. Raises PackageError where a file cannot be opened.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files: list[_Watched] = []
        for path in paths:
            try:
                descriptor = os.open(
                    path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
                )
            except OSError as error:
                raise PackageError(
                    f"{path}: cannot be read ({error.strerror}), but weights lie there"
                ) from error
            close = weakref.finalize(self, os.close, descriptor)
            self._files.append(_Watched(path, descriptor, os.fstat(descriptor), close))

    def close(self) -> None:
        """Let go of the files; nothing is watched any more."""
        files, self._files = self._files, []
        for file in files:
            file.close()

    def check(self) -> None:
        """Raise PackageError naming the first file whose size or modification time is not as it
        was.
        """
        for file in self._files:
            now = os.fstat(file.descriptor)
            if now.st_size != file.found.st_size:
                raise _changed(file.path, f"{now.st_size} bytes", f"{file.found.st_size}")
            if now.st_mtime_ns != file.found.st_mtime_ns:
                raise _changed(
                    file.path,
                    f"modification time {now.st_mtime_ns} ns",
                    f"{file.found.st_mtime_ns}",
                )

    def check_mapped(self) -> None:
        """Raise PackageError where another file now has the name of a watched one, or the file has
        changed.

        To be called once ONNX Runtime has mapped the files by their names.
        """
        for file in self._files:
            try:
                now = file.path.stat()
            except OSError as error:
                raise _changed(
                    file.path, f"no file ({error.strerror})", "the one that was checked"
                ) from error
            if (now.st_dev, now.st_ino) != (file.found.st_dev, file.found.st_ino):
                raise _changed(
                    file.path, f"another file (inode {now.st_ino})", f"inode {file.found.st_ino}"
                )
        self.check()


def _changed(path: Path, found: str, expected: str) -> PackageError:
    return PackageError(
        f"{path}: changed while the session had it open: found {found}, expected {expected}; "
        f"{_AGAIN}"
    )
