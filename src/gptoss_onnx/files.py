"""Small file operations that must not lose anything: atomic writes, and the identity of safetensors files."""

import hashlib
import os
import struct
from pathlib import Path

from gptoss_onnx.errors import CheckpointError

HEADER_LIMIT = 100_000_000  # bytes; the safetensors library's own, and it keeps other formats from being read whole


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to a temporary sibling, flush it to disk, and rename it over `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def safetensors_header(path: Path) -> bytes:
    """Return the raw JSON header of a safetensors file: an 8-byte little-endian length, then that many bytes.

    Raises CheckpointError when the file is shorter than its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 0 < length <= min(size - 8, HEADER_LIMIT):
            raise CheckpointError(
                f"{path}: not a safetensors file, or cut off: {size} bytes, header length field says {length}"
            )
        return file.read(length)


def header_sha256(path: Path) -> str:
    """Return the sha256 of a safetensors file's header: cheap, and it pins all names, shapes and offsets."""
    return hashlib.sha256(safetensors_header(path)).hexdigest()
