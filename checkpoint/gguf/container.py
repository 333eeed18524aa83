"""The tensors of a GGUF checkpoint: where each lies, checked against the files' sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gptoss_onnx.checkpoint.fields import Problems, shown
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.gguf.header import Header, HeaderTensor, Value, read_header
from gptoss_onnx.checkpoint.gguf.kinds import KINDS, kind_name
from gptoss_onnx.checkpoint.gguf.parts import part_names
from gptoss_onnx.checkpoint.tensors import TensorInfo, element_count
from gptoss_onnx.errors import CheckpointError

MOST_ELEMENTS = 1 << 44  # of a tensor


@dataclass(frozen=True)
class Gguf:
    """An opened GGUF checkpoint.

    Attributes:
        metadata: of its first file.
        tensors: by their names in it. What is in blocks has their bytes as its last axis.
        files: the real files, with their names in the folder.
    """

    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]
    files: Mapping[Path, str]


def read_gguf(folder: CheckpointFolder, name: str, problems: Problems) -> Gguf:
    """Read the headers of a file and of all its parts.

    What is wrong with tensors is noted in `problems`. Raises CheckpointError where a file cannot be
    read, or the parts are not parts of one file.
    """
    names = part_names(folder, name)
    tensors: dict[str, TensorInfo] = {}
    files: dict[Path, str] = {}
    first: Header | None = None
    for number, part in enumerate(names):
        header = read_header(folder, part)
        first = first or header
        _check_part(folder.path / part, header, number, len(names))
        real = folder.require(part)
        files[real] = part
        found = [_place(part, entry, header.begin, real, problems) for entry in header.tensors]
        infos = [info for info in found if info is not None]
        _check_extents(part, infos, folder.size(part), problems)
        for info in infos:
            if info.name in tensors:
                problems.add(f"{info.name}: found twice in {part}")
            tensors[info.name] = info
    assert first is not None
    _check_count(folder.path / names[0], first, len(tensors), problems)
    return Gguf(first.metadata, tensors, files)


def _place(
    file: str, entry: HeaderTensor, begin: int, real: Path, problems: Problems
) -> TensorInfo | None:
    """Return where a tensor lies; None if it is noted that it cannot be read."""
    kind = KINDS.get(entry.kind)
    if kind is None:
        problems.add(
            f"{entry.name}: found type {kind_name(entry.kind)} in {file}, expected F32, F16, Q8_0, "
            "BF16 or MXFP4: other quantizations are not read"
        )
        return None
    shape = entry.shape or (1,)
    # one after the other, so that no product of strangers' numbers grows without end
    if any(size > MOST_ELEMENTS for size in shape) or element_count(shape) > MOST_ELEMENTS:
        problems.add(f"{entry.name}: found shape {shape} in {file}, expected fewer elements")
        return None
    if kind.block > 1:
        if shape[-1] % kind.block:
            problems.add(
                f"{entry.name}: found rows of {shape[-1]} in {file}, expected a multiple of "
                f"{kind.block}, the block of {kind.name}"
            )
            return None
        shape = (*shape[:-1], shape[-1] // kind.block, kind.nbytes)
        size = element_count(shape)
    else:
        size = element_count(shape) * kind.nbytes
    return TensorInfo(entry.name, kind.name, shape, real, begin + entry.offset, size)


def _check_extents(file: str, infos: list[TensorInfo], size: int, problems: Problems) -> None:
    """Note tensors that overlap, or pass the end of the file `file` of `size` bytes."""
    end, before = 0, ""
    for info in sorted(infos, key=lambda info: (info.offset, info.nbytes)):
        if info.offset < end:
            problems.add(f"{info.name}: overlaps {before} in {file}")
        end, before = max(end, info.offset + info.nbytes), info.name
    if end > size:
        cut = sum(info.offset + info.nbytes > size for info in infos)
        problems.add(
            f"{file}: found {size} bytes, its header expects {end}: cut off, {cut} of {len(infos)} "
            "tensors are incomplete; download it again"
        )


def _check_part(path: Path, header: Header, number: int, count: int) -> None:
    """Raise CheckpointError where a file's metadata says that it is another part than its name."""
    said = header.metadata.get("split.count", count if count == 1 else None)
    if said in (0, 1) and count == 1:
        return
    if said != count:
        raise CheckpointError(
            f"{path}: split.count: found {shown(said)}, expected {count}, as its name has it "
            "(NAME-00001-of-00003.gguf)"
        )
    if header.metadata.get("split.no") != number and count > 1:
        found = header.metadata.get("split.no")
        raise CheckpointError(
            f"{path}: split.no: found {shown(found)}, expected {number}, as its name has it"
        )


def _check_count(path: Path, first: Header, found: int, problems: Problems) -> None:
    said = first.metadata.get("split.tensors.count")
    if said is not None and said != found:
        problems.add(f"{path.name}: split.tensors.count: found {shown(said)}, expected {found}")
