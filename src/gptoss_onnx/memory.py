"""The memory of this process: what it holds, and what it may still take.

The machine has some left, and control groups of Linux, such as those of containers, allow some.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptoss_onnx.amounts import file_size

_KIB = 1024
_ROOT = Path("/")


@dataclass(frozen=True)
class MemoryRoom:
    """How many bytes there are to take, and whose they are, for messages."""

    size: int
    owner: str

    @property
    def words(self) -> str:
        """Both in words."""
        return f"{self.owner} has {file_size(self.size)} left"


@dataclass(frozen=True)
class _Names:
    """What the files of a control group are called, and the files' pages in its statistics."""

    limit: str
    usage: str
    pages: tuple[str, str]


_VERSION_1 = _Names(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)
_VERSION_2 = _Names("memory.max", "memory.current", ("active_file", "inactive_file"))


def memory_room(root: Path = _ROOT) -> MemoryRoom | None:
    """Return the least that the machine and each control group of this process have left, or None
    where the system does not say.

    Pages of files count as free, because the system takes them back: those of mapped weights are
    such. `root` is where `proc` and `sys` are.
    """
    rooms = [
        MemoryRoom(size, owner)
        for size, owner in (
            (_machine(root), "this machine"),
            *((size, "the control group of this process") for size in _groups(root)),
        )
        if size is not None
    ]
    return min(rooms, key=lambda room: room.size, default=None)


def own_bytes(root: Path = _ROOT) -> int | None:
    """Return how much this process holds that is no file's, or None where the system does not
    say.
    """
    return _kibibytes(root / "proc" / "self" / "status", "RssAnon:")


def _machine(root: Path) -> int | None:
    return _kibibytes(root / "proc" / "meminfo", "MemAvailable:")


def _kibibytes(file: Path, name: str) -> int | None:
    lines = (line.split() for line in _lines(file))
    return next((int(line[1]) * _KIB for line in lines if line[:1] == [name]), None)


def _groups(root: Path) -> Iterator[int | None]:
    """Yield what is left in each group that this process is in, and in those around them."""
    for line in _lines(root / "proc" / "self" / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, names = root / "sys" / "fs" / "cgroup", _VERSION_2
        elif "memory" in controllers.split(","):
            base, names = root / "sys" / "fs" / "cgroup" / "memory", _VERSION_1
        else:
            continue
        folder = base / path.strip("/")
        # within a container the path may be the one that the host sees
        folder = folder if folder.is_dir() else base
        for group in (folder, *folder.parents):
            yield _left(group, names)
            if group == base:
                break


def _left(group: Path, names: _Names) -> int | None:
    limit, usage = (_number(group / name) for name in (names.limit, names.usage))
    if limit is None or usage is None:
        return None
    statistics = (line.split() for line in _lines(group / "memory.stat"))
    pages = sum(int(line[1]) for line in statistics if line[0] in names.pages)
    return max(0, limit - usage + pages)


def _number(file: Path) -> int | None:
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdecimal() else None  # `max` is none


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
