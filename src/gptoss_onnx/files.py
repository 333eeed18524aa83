"""Small file operations on files that may come from strangers, or that must not be lost.

Reads are of regular files alone and bounded, so that a FIFO, a device or an endless file cannot
hold or fill the process. Writes are atomic.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gptoss_onnx.errors import CheckpointError, GptOssError

# bytes: a hundred thousand tensors; it keeps other formats from being read whole
HEADER_LIMIT = 16_000_000
_NAME_LIMIT = 255  # bytes on most file systems
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@contextmanager
def open_regular(path: Path, error: type[GptOssError]) -> Iterator[BinaryIO]:
    """Open a regular file for reading; nothing else is waited for or read.

    Raises FileNotFoundError where there is no such file, and `error` for a FIFO, a device, a
    folder, a name that no file can have, or a file that cannot be opened.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:  # ValueError: a NUL, or a surrogate, in the name
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise error(f"{path}: cannot be opened ({reason})") from problem
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)  # fdopen would refuse a folder in words of its own
        found = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise error(f"{path}: found {found}, expected a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_file(path: Path, limit: int, error: type[GptOssError]) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes.

    Raises FileNotFoundError where there is no such file, and `error` for one that is larger, that
    is not regular, or that cannot be read.
    """
    with open_regular(path, error) as file:
        try:
            # not what fstat says: files of /proc and growing files have other sizes
            content = file.read(limit + 1)
        except OSError as problem:
            raise error(f"{path}: cannot be read ({problem.strerror})") from problem
    if len(content) > limit:
        raise error(
            f"{path}: found more than {limit} bytes, expected at most that many in such a file"
        )
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary sibling, flush it to disk, and rename it over `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # a link of that name would lead the writing out of the folder
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_plain_name(name: str) -> bool:
    """Say whether a name is that of a file in a folder: no path, nothing that leads out, nothing
    unprintable.

    A backslash separates folders on other systems, a colon drives and streams; ONNX Runtime takes a
    path of stars for an address in memory.
    """
    if name in ("", ".", "..") or len(name) > _NAME_LIMIT:
        return False
    return name.isprintable() and not set(name) & set("/\\:*")


def safetensors_header(path: Path) -> bytes:
    """Return the raw JSON header of a safetensors file: an 8-byte little-endian length, then that
    many bytes.

    Raises FileNotFoundError, or CheckpointError when it is not a regular file or shorter than its
    header says.
    """
    with open_regular(path, CheckpointError) as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 0 < length <= min(size - 8, HEADER_LIMIT):
            raise CheckpointError(
                f"{path}: not a safetensors file, or cut off: {size} bytes, header length field "
                f"says {length}"
            )
        return file.read(length)


def header_sha256(path: Path) -> str:
    """Return the sha256 of a safetensors file's header: cheap, and it pins all names, shapes and
    offsets.
    """
    return hashlib.sha256(safetensors_header(path)).hexdigest()
