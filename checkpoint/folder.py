"""CheckpointFolder: the only way in which this project opens a checkpoint's files.

Checkpoints come from strangers. A link in one may lead within its folder, or within one hub
repository: that which the folder is a snapshot of, or whose files it was made of links to. And
nowhere else: an export copies files into packages, and must not copy those of its user. Every file
is a regular one. What a file was when it was first looked at is remembered, so that a checkpoint
that changes meanwhile is noticed.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import is_plain_name, open_regular, read_file
from gptoss_onnx.json_text import JSON_LIMIT, printable, read_json_object

_LONGEST = 255  # letters of a stranger's path that are worth reading


@dataclass(frozen=True)
class FileState:
    """Which file it is, and what tells that it was written to: its size in bytes and modification
    time.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """Return the state of an open file."""
        status = os.fstat(descriptor)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class CheckpointFolder:
    """The files of one checkpoint folder, by their names in it.

    Attributes:
        path: the folder, as it was given.
        root: the real folder that no file may lie outside of: the hub repository of a snapshot,
            else the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = _root(path.resolve())
        self._seen: dict[str, FileState | None] = {}
        # the one whose blobs links of the folder may lead to; None until the first does
        self._repository = self.root if _is_repository(self.root) else None

    def find(self, name: str) -> Path | None:
        """Return the real path of the file of this name, or None if there is no such file.

        Raises CheckpointError for a name that is not a plain file name, for a link that is dangling
        or leads outside of `root`, for what is not a regular file or cannot be opened, and for a
        file that has changed since it was first looked at.
        """
        real, state = self._look(name)
        before = self._seen.setdefault(name, state)
        if state != before:
            raise CheckpointError(f"{self.path / name}: {_change(before, state)} {_MEANWHILE}")
        return real

    def holds(self, name: str) -> bool:
        """Say whether there is such a file; raises as `find`."""
        return self.find(name) is not None

    def require(self, name: str) -> Path:
        """Return the real path of a file that every checkpoint has; raises as `find`, and if it is
        missing.
        """
        real = self.find(name)
        if real is None:
            raise CheckpointError(
                f"{self.path / name}: no such file: the checkpoint is incomplete, download it again"
            )
        return real

    def read(self, name: str, limit: int) -> bytes | None:
        """Return the bytes of a file of at most `limit` bytes, or None if it is missing; raises
        as `find`.
        """
        return (
            None if self.find(name) is None else read_file(self.path / name, limit, CheckpointError)
        )

    def read_json(self, name: str, limit: int = JSON_LIMIT) -> dict[str, Any]:
        """Return the JSON object in a file that must be there; raises as `require`, and for what is
        not such JSON.
        """
        self.require(name)
        return read_json_object(self.path / name, CheckpointError, limit)

    def size(self, name: str) -> int:
        """Return the size in bytes of a file that `find` has found."""
        state = self._seen[name]
        assert state is not None
        return state.size

    def check_open(self, name: str, descriptor: int) -> None:
        """Raise CheckpointError unless an open file is the one that `find` found, as it was."""
        state, before = FileState.of(descriptor), self._seen[name]
        if state != before:
            raise CheckpointError(f"{self.path / name}: {_change(before, state)} {_MEANWHILE}")

    def check_unchanged(self) -> None:
        """Raise CheckpointError where a file is not what it was when it was first looked at, or has
        appeared.
        """
        for name in list(self._seen):
            self.find(name)

    def _look(self, name: str) -> tuple[Path | None, FileState | None]:
        if not is_plain_name(name):
            raise CheckpointError(
                f"{self.path}: found the file name {_shown(repr(name))}, expected a name inside "
                "the folder"
            )
        path = self.path / name
        try:
            real = path.resolve(strict=True)
        except FileNotFoundError:
            if path.is_symlink():
                target = _shown(str(path.readlink()))
                raise CheckpointError(
                    f"{path}: dangling symlink to {target}: the download is incomplete, repeat it"
                ) from None
            return None, None
        # RuntimeError: links in a circle, before Python 3.13
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "a circle of links"
            raise CheckpointError(f"{path}: cannot be opened ({reason})") from error
        if not real.is_relative_to(self.root) and not self._is_of_hub(real):
            raise CheckpointError(
                f"{path}: a link to {_shown(str(real))}, outside of {self.root}: pass the folder "
                "that it leads to, or put the file itself in its place if it belongs to the "
                "checkpoint"
            )
        try:
            with open_regular(path, CheckpointError) as file:
                return real, FileState.of(file.fileno())
        except FileNotFoundError:
            return None, None

    def _is_of_hub(self, real: Path) -> bool:
        """Whether a file is a blob of a hub repository, and of the same one as those before it."""
        repository = real.parent.parent
        if real.parent.name != "blobs" or not _is_repository(repository):
            return False
        self._repository = self._repository or repository
        return repository == self._repository


_MEANWHILE = "since it was first looked at: do this again when nothing writes to the checkpoint"


def _root(folder: Path) -> Path:
    """Return the hub repository that a real folder is a snapshot of, or lies in one of; else the
    folder itself.
    """
    for snapshot in (folder, *folder.parents):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and _is_repository(repository):
            return repository
    return folder


def _is_repository(folder: Path) -> bool:
    return folder.name.startswith("models--")


def _change(before: FileState | None, now: FileState | None) -> str:
    """Say what has become of a file, as a predicate."""
    if before is None:
        return "has appeared"
    if now is None:
        return "is gone"
    if (before.device, before.inode) != (now.device, now.inode):
        return "was replaced by another file"
    if now.size < before.size:
        return f"became shorter ({before.size} bytes, now {now.size})"
    if now.size > before.size:
        return f"became longer ({before.size} bytes, now {now.size})"
    return "was written to"


def _shown(text: str) -> str:
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")
