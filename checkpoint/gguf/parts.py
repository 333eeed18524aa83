"""Which files a GGUF checkpoint is: one, or all parts of a split one."""

import re
from pathlib import Path

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.gguf.header import MAGIC
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import open_regular

SUFFIX = ".gguf"
MOST_PARTS = 1000
_PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")


def is_gguf(path: Path) -> bool:
    """Say whether a path is that of a GGUF file: by its name, or, as ollama's have none, by how it
    begins.
    """
    if path.suffix == SUFFIX:
        return path.is_file()
    if not path.is_file():
        return False
    with open_regular(path, CheckpointError) as file:
        return file.read(len(MAGIC)) == MAGIC


def gguf_of(folder: Path) -> Path | None:
    """Return the one GGUF file of a folder, or the first part of its one split file; None if there
    is none.

    Raises CheckpointError if there are several.
    """
    names = sorted(path.name for path in folder.glob(f"*{SUFFIX}"))
    if not names:
        return None
    stems = {_stem(name) for name in names}
    if len(stems) > 1:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise CheckpointError(
            f"{folder}: found {listed}: no reader can know which is meant; name one file"
        )
    return folder / names[0]


def part_names(folder: CheckpointFolder, name: str) -> tuple[str, ...]:
    """Return the names of all parts of a file, in their order, or its own alone.

    Raises CheckpointError for one that says it is a part of itself, and for a missing part.
    """
    found = _PART.fullmatch(name)
    if found is None:
        return (name,)
    count = int(found["count"])
    if not 1 <= int(found["number"]) <= count <= MOST_PARTS:
        raise CheckpointError(
            f"{folder.path / name}: found part {int(found['number'])} of {count}, expected one of "
            f"1 to {MOST_PARTS}"
        )
    names = tuple(f"{found['stem']}-{n:05d}-of-{count:05d}{SUFFIX}" for n in range(1, count + 1))
    missing = [part for part in names if folder.find(part) is None]
    if missing:
        raise CheckpointError(
            f"{folder.path / missing[0]}: missing, one of the {count} parts of this file"
            + (f"; {len(missing) - 1} others are missing too" if len(missing) > 1 else "")
            + ": download it as well"
        )
    return names


def _stem(name: str) -> str:
    found = _PART.fullmatch(name)
    return name if found is None else f"{found['stem']}-of-{found['count']}"
