"""Weight files: is a safetensors file the one that the manifest recorded, and where do its tensors
lie?
"""

import hashlib
from bisect import bisect_right
from operator import itemgetter
from pathlib import Path

from gptoss_onnx.errors import CheckpointError, PackageError
from gptoss_onnx.files import safetensors_header
from gptoss_onnx.json_text import parse_json
from gptoss_onnx.manifest import WeightFile

_LENGTH_BYTES = 8  # of the header's length, before the header itself


def check_weight_file(path: Path, entry: WeightFile, *, compare_time: bool) -> bytes:
    """Return the header of a weight file.

    Raises PackageError unless the file is the one that the manifest recorded: size, header,
    modification time.
    """
    try:
        stat = path.stat()
        if stat.st_size != entry.size:
            raise _changed(path, f"{stat.st_size} bytes", f"{entry.size}")
        header = safetensors_header(path)
    except CheckpointError as error:
        raise PackageError(f"{error}; export again") from error
    except OSError as error:
        raise PackageError(
            f"{path}: cannot be read ({error.strerror}), but weights lie there; put it back or "
            "export again"
        ) from error
    found = hashlib.sha256(header).hexdigest()
    if found != entry.header_sha256:
        raise _changed(path, f"safetensors header {found[:12]}…", f"{entry.header_sha256[:12]}…")
    if compare_time and stat.st_mtime_ns != entry.mtime_ns:
        raise _changed(path, f"modification time {stat.st_mtime_ns} ns", f"{entry.mtime_ns}")
    return header


def tensor_ranges(path: Path, header: bytes) -> list[tuple[int, int]]:
    """Return (offset, length) in bytes of each tensor of a safetensors file, from the beginning of
    the file, in their order there.

    `path` names the file in messages. Raises PackageError where the header is not that of a
    safetensors file.
    """
    return sorted(named_ranges(path, header).values())


def lies_in_one(ranges: list[tuple[int, int]], offset: int, length: int) -> bool:
    """Say whether some bytes are those of one tensor, or a part of them.

    A part is what q, k and v are where a checkpoint stores the rows of the three in one tensor.
    `ranges` are those of `tensor_ranges`.
    """
    before = bisect_right(ranges, offset, key=itemgetter(0))
    return before > 0 and length >= 0 and offset + length <= sum(ranges[before - 1])


def named_ranges(path: Path, header: bytes) -> dict[str, tuple[int, int]]:
    """Return (offset, length) as `tensor_ranges`, by the tensors' names."""
    document = parse_json(header, str(path), PackageError)
    begin = _LENGTH_BYTES + len(header)
    try:
        spans = {
            name: entry["data_offsets"]
            for name, entry in document.items()
            if name != "__metadata__"
        }
        return {name: (begin + first, last - first) for name, (first, last) in spans.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PackageError(
            f"{path}: malformed safetensors header ({error}); export again"
        ) from error


def _changed(path: Path, found: str, expected: str) -> PackageError:
    return PackageError(
        f"{path}: changed since the package was written: found {found}, expected {expected}; "
        "export again"
    )
