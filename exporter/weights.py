"""Place a checkpoint's weight files in a package and point the graph's external data into them.

No weight is converted or rewritten here: an initializer is a byte range of a safetensors file, the
checkpoint's own.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Literal

import onnx_ir as ir

from gptoss_onnx.choices import WeightMode
from gptoss_onnx.errors import CheckpointError, PackageError
from gptoss_onnx.exporter.external_data import byte_range, require_room
from gptoss_onnx.files import header_sha256, open_regular
from gptoss_onnx.manifest import WeightFile, Weights
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.checkpoint import Checkpoint

COPIED_AT_ONCE = 8 << 20  # bytes
_SHA256_DIGITS = 64
_FICLONE = 0x40049409  # of linux/fs.h


@dataclass(frozen=True)
class Placement:
    """Where the graph finds each real weight file: its location relative to `root` (None: the
    package folder).
    """

    mode: WeightMode
    root: Path | None
    locations: Mapping[Path, str]


def plan_placement(
    checkpoint: Checkpoint, mode: WeightMode, elsewhere: frozenset[str]
) -> Placement:
    """Return where the checkpoint's weight files will lie.

    Files of which the graph will use nothing are left out.

    Args:
        checkpoint: the opened checkpoint; symlinks (a Hugging Face cache) are already resolved to
            the real files.
        mode: `link` (hard links), `copy`, or `reference` (nothing is placed).
        elsewhere: names of the parameters that are written into another file, or that the graph
            does not read.
    """
    used = {
        source.file
        for name, parameter in checkpoint.named.items()
        if name not in elsewhere
        for source in parameter.sources
    }
    files = {path: name for path, name in checkpoint.placed.items() if path in used}
    if mode == "reference":
        root = Path(os.path.commonpath([path.parent for path in files]))
        return Placement(mode, root, {path: path.relative_to(root).as_posix() for path in files})
    return Placement(mode, None, files)


def place_weights(
    checkpoint: Checkpoint, placement: Placement, folder: Path, progress: Progress
) -> None:
    """Bring the checkpoint's weight files into `folder`, the package being written.

    `progress` hears how many bytes are copied. Raises PackageError where the file system refuses
    hard links, or has no room for a copy.
    """
    files = placement.locations
    if placement.mode == "copy" and files:
        size = sum(map(checkpoint.size_of, files))
        remedy = "free some space, or choose --weights link or reference"
        require_room(folder, size, "copying the weights needs", remedy)
        progress.begin("copying the weights", size)
    for path, name in files.items():
        if placement.mode == "link":
            _link(path, folder / name)
        elif placement.mode == "copy":
            _copy(path, folder / name, progress)


def name_weights(model: ir.Model, checkpoint: Checkpoint) -> None:
    """Give every weight, in place, its name in the checkpoint in place of the decoder's."""
    initializers = model.graph.initializers
    for canonical, parameter in checkpoint.parameters.items():
        if canonical in initializers:
            initializers[canonical].name = parameter.name


def attach_weights(model: ir.Model, checkpoint: Checkpoint, placement: Placement) -> None:
    """Give every initializer that has no value its byte range in the placed files, in place."""
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            continue
        view = checkpoint.named[name].view
        assert view is not None, f"{name} is no view"
        location = placement.locations[view.file]
        value.const_value = byte_range(view, location, view.offset, value.dtype, value.shape)


def layout_of(checkpoint: Checkpoint) -> str:
    """Return how manifests name a checkpoint's layout: that of its files, and of its experts."""
    return checkpoint.config.layout.replace("hf", checkpoint.layout, 1)


def describe_weights(
    checkpoint: Checkpoint,
    placement: Placement | None,
    folder: Path,
    computed: tuple[str, ...],
    exact: bool,
) -> Weights:
    """Return the manifest's record of the weights, as they lie now: the placed files, if any, then
    the `computed` ones; `exact` if nothing in these was rounded.
    """
    placement = placement or Placement("copy", None, {})
    root = placement.root or folder
    placed = sorted(placement.locations.items(), key=lambda item: item[1])
    files = [
        _describe_file(root, location, "checkpoint", _known_sha256(path))
        for path, location in placed
    ]
    files += [_describe_file(folder, name, "export", None) for name in computed]
    return Weights(
        mode=placement.mode,
        root=None if placement.root is None else str(placement.root),
        layout=layout_of(checkpoint),
        bit_identical=exact,
        files=tuple(files),
    )


def _describe_file(
    root: Path, location: str, origin: Literal["checkpoint", "export"], sha256: str | None
) -> WeightFile:
    status = (root / location).stat()
    header = header_sha256(root / location)
    return WeightFile(location, origin, status.st_size, status.st_mtime_ns, header, sha256)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        gigabytes = source.stat().st_size / 1e9
        raise PackageError(
            f"cannot hard-link {source} into {target.parent.parent} ({error.strerror}): write the "
            "package to the "
            "checkpoint's file system, or choose --weights reference, or --weights copy "
            f"({gigabytes:.1f} GB this file)"
        ) from error


def _copy(source: Path, target: Path, progress: Progress) -> None:
    with open_regular(source, CheckpointError) as file, target.open("xb", buffering=0) as copy:
        if _clone(file, copy):
            return progress.advance(os.fstat(file.fileno()).st_size)
        while piece := file.read(COPIED_AT_ONCE):
            left = memoryview(piece)
            while left:
                left = left[copy.write(left) :]
            progress.advance(len(piece))


def _clone(source: BinaryIO, target: FileIO) -> bool:
    """Let two files share their blocks until one is written to; False where the file system cannot,
    as Btrfs and XFS can.
    """
    try:
        import fcntl

        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except (ImportError, OSError):  # Windows, another file system, or one without clones
        return False
    return True


def _known_sha256(path: Path) -> str | None:
    """Return the sha256 a Hugging Face cache gives for free: it names a large file's blob after its
    hash.
    """
    name = path.name
    is_blob = (
        path.parent.name == "blobs"
        and len(name) == _SHA256_DIGITS
        and set(name) <= set("0123456789abcdef")
    )
    return name if is_blob else None
