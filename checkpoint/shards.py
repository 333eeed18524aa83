"""Read the headers of a checkpoint's safetensors files: which tensor lies where. No weight byte is
read.

Format: an 8-byte little-endian header length, a JSON header, then the tensors without gaps
(https://github.com/huggingface/safetensors#format).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import INDEX, METAL, SINGLE, note_refused
from gptoss_onnx.checkpoint.tensors import TORCH_DTYPES, TensorInfo, element_count
from gptoss_onnx.collection import no_collection
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import HEADER_LIMIT, is_plain_name, open_regular, safetensors_header
from gptoss_onnx.json_text import parse_json

SUFFIX = ".safetensors"
MOST_FILES = 1000  # of one checkpoint
MOST_DIMENSIONS = 8
MOST_BYTES = 2**63 - 1  # of a file or a tensor
ENTRY = {"dtype", "shape", "data_offsets"}


@dataclass
class Shards:
    """The tensors found in the files of a folder.

    Attributes:
        folder: where the files are.
        tensors: by name.
        files: the real files, with their names in the folder.
        promised: the names that the index lists.
    """

    folder: CheckpointFolder
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    files: dict[Path, str] = field(default_factory=dict)
    promised: set[str] = field(default_factory=set)


def read_shards(folder: CheckpointFolder, problems: Problems) -> Shards:
    """Read every header of the checkpoint in `folder`: of the files that its index lists, else
    `model.safetensors`.

    What is wrong with a file is noted in `problems`, by its name in the folder, and so is what else
    lies there and must not be ignored. Raises CheckpointError when the folder holds no safetensors
    checkpoint, or its index cannot be read.
    """
    reader = _Reader(folder, problems)
    if folder.find(INDEX) is not None:
        reader.read_indexed()
    elif folder.find(SINGLE) is not None:
        reader.read_files([SINGLE])
    else:
        raise CheckpointError(f"{folder.path}: {_what_instead(folder.path)}")
    note_refused(folder.path, reader.named, problems)
    return reader.shards


def read_named(folder: CheckpointFolder, names: list[str], problems: Problems) -> Shards:
    """Read the headers of files of these names, whatever else the folder holds; what is wrong with
    one is noted in `problems`.
    """
    reader = _Reader(folder, problems)
    reader.read_files(names)
    return reader.shards


class _Reader:
    """Reads headers one after the other, and counts their bytes together."""

    def __init__(self, folder: CheckpointFolder, problems: Problems) -> None:
        self.shards = Shards(folder)
        self.named: list[str] = []
        self._folder, self._problems = folder, problems
        self._header_bytes = 0

    def read_indexed(self) -> None:
        """Read the files that the index lists, and compare what it says of them with what is in
        them.
        """
        path, shards = self._folder.path / INDEX, self.shards
        weight_map = self._folder.read_json(INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(file, str) for file in weight_map.values()
        ):
            raise CheckpointError(
                f"{path}: no weight_map from tensor names to file names; download it again"
            )
        names = sorted(set(weight_map.values()))
        if len(names) > MOST_FILES:
            raise CheckpointError(
                f"{path}: found {len(names)} files, expected at most {MOST_FILES}"
            )
        shards.promised.update(weight_map)
        unreadable = self.read_files(names)
        found = {tensor: shards.files[info.file] for tensor, info in shards.tensors.items()}
        for tensor, name in weight_map.items():
            if name in unreadable:
                continue
            if tensor not in found:
                self._problems.add(f"{tensor}: missing in {name}, where {INDEX} lists it")
            elif found[tensor] != name:
                self._problems.add(
                    f"{tensor}: found in {found[tensor]}, but {INDEX} lists it in {name}"
                )
        for tensor in sorted(found.keys() - weight_map.keys()):
            self._problems.add(f"{tensor}: found in {found[tensor]}, but not listed in {INDEX}")

    def read_files(self, names: list[str]) -> set[str]:
        """Add the tensors of files; returns the names of those whose header cannot be read (noted,
        nothing added).
        """
        self.named = names
        unreadable = set()
        for name in names:
            if not is_plain_name(name) or not name.endswith(SUFFIX):
                self._problems.add(
                    f"{INDEX}: found file {name!r}, expected a name inside the folder, *{SUFFIX}"
                )
                unreadable.add(name)
                continue
            try:
                with no_collection():
                    self._read_file(name)
            except CheckpointError as error:
                self._problems.add(str(error).removeprefix(f"{self._folder.path}/"))
                unreadable.add(name)
        return unreadable

    def _read_file(self, name: str) -> None:
        real, path, shards = self._folder.require(name), self._folder.path / name, self.shards
        if real in shards.files:
            raise CheckpointError(
                f"{name}: the same file as {shards.files[real]}, expected one of its own"
            )
        _refuse_pointer(path)
        header = safetensors_header(path)
        self._header_bytes += len(header)
        if self._header_bytes > HEADER_LIMIT:
            raise CheckpointError(
                f"{name}: with it, all headers together have more than {HEADER_LIMIT} bytes"
            )
        infos = _read_header(name, header, real)
        _check_extents(name, infos, 8 + len(header), self._folder.size(name), self._problems)
        shards.files[real] = name
        for info in infos:
            if info.name in shards.tensors:
                other = shards.files[shards.tensors[info.name].file]
                self._problems.add(f"{info.name}: found twice, in {other} and in {name}")
            shards.tensors.setdefault(info.name, info)


def _read_header(name: str, header: bytes, real: Path) -> list[TensorInfo]:
    """Return the tensors of the file `name`; raises CheckpointError where its header is not of
    safetensors' form.
    """
    malformed = f"{name}: malformed safetensors header"
    entries = parse_json(header, malformed, CheckpointError)
    if not isinstance(entries, dict):
        raise CheckpointError(
            f"{malformed}: found a {type(entries).__name__}, expected an object; download it again"
        )
    start = 8 + len(header)
    try:
        return [
            _read_entry(key, entry, real, start)
            for key, entry in entries.items()
            if key != "__metadata__"
        ]
    except ValueError as error:
        raise CheckpointError(f"{malformed} ({error}); download it again") from error


def _read_entry(name: str, entry: Any, real: Path, start: int) -> TensorInfo:
    if not isinstance(entry, dict) or entry.keys() != ENTRY:
        raise ValueError(f"{name[:80]!r}: expected an object of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise ValueError(f"{name[:80]!r}: found dtype {dtype!r:.40}, expected a string")
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS:
        raise ValueError(
            f"{name[:80]!r}: found shape {shape!r:.80}, expected at most {MOST_DIMENSIONS} "
            "integers from 0 on"
        )
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(
            f"{name[:80]!r}: found data_offsets {offsets!r:.80}, expected two ascending integers "
            "from 0 on"
        )
    begin, end = offsets
    return TensorInfo(name, dtype, tuple(shape), real, start + begin, end - begin)


def _are_sizes(value: Any) -> bool:
    """Whether a JSON value is a list of sizes: integers, not booleans or floats, that a 64-bit file
    can have.
    """
    if not isinstance(value, list):
        return False
    for entry in value:  # noqa: SIM110  # of so few numbers a generator takes far longer
        if type(entry) is not int or not 0 <= entry <= MOST_BYTES:
            return False
    return True


def _check_extents(
    name: str, infos: list[TensorInfo], start: int, size: int, problems: Problems
) -> None:
    """Note tensors whose bytes are not those of their shape, overlap, leave gaps or pass the file's
    end.

    `start` is where the tensors begin in the file `name`, and `size` its length, both in bytes.
    """
    end = start
    for info in sorted(infos, key=lambda info: (info.offset, info.nbytes)):
        dtype = TORCH_DTYPES.get(info.dtype)  # any other is refused later, as unexpected
        if dtype is not None and info.nbytes != element_count(info.shape) * dtype.itemsize:
            problems.add(
                f"{info.name}: {info.nbytes} bytes in {name}, expected "
                f"{element_count(info.shape) * dtype.itemsize} for {info.dtype} {info.shape}"
            )
        elif info.offset != end:
            problems.add(f"{info.name}: begins at byte {info.offset} of {name}, expected {end}")
        end = info.offset + info.nbytes
    if end > size:
        cut = sum(info.offset + info.nbytes > size for info in infos)
        problems.add(
            f"{name}: found {size} bytes, its header expects {end}: cut off, {cut} of {len(infos)} "
            "tensors are incomplete; download it again"
        )
    elif end < size:
        problems.add(f"{name}: found {size} bytes, its header expects {end}; download it again")


def _refuse_pointer(path: Path) -> None:
    """Raise CheckpointError for the stand-in that git-lfs leaves where it has not fetched a
    file.
    """
    with open_regular(path, CheckpointError) as file:
        if file.read(24) == b"version https://git-lfs.":
            raise CheckpointError(
                f"{path}: found a git-lfs pointer instead of the weights; fetch them with: git lfs "
                "pull"
            )


_SAVE_AGAIN = (
    'save them anew: python -c "from transformers import AutoModelForCausalLM as M;'
    "M.from_pretrained('.', dtype='auto').save_pretrained('.')\" (in the folder)"
)


def _what_instead(folder: Path) -> str:
    """Say what a folder without a safetensors checkpoint holds, and what was expected."""
    expected = f"expected {SINGLE} or {INDEX} in Hugging Face layout"
    kinds = (
        (
            "pytorch_model*.bin*",
            "found PyTorch .bin weights only, which are not read (they can run code): if you trust "
            f"them, {_SAVE_AGAIN}; {expected}",
        ),
        (
            "*.distcp",
            "found a distributed checkpoint of PyTorch only, which is not read; gather it with: "
            f"accelerate merge-weights FOLDER OUTPUT; {expected}",
        ),
        (
            "adapter_model.safetensors",
            f"found an adapter: export its base model, with --adapter and this folder; {expected}",
        ),
        ("model-*-of-*.safetensors", f"found shards but no {INDEX}; download it as well"),
        (
            "consolidated*.safetensors",
            f"found consolidated.safetensors only: Mistral's own layout is not read; {expected}",
        ),
        (
            "original",
            f"found original/ only, OpenAI's own layout: name that folder, {folder / 'original'}; "
            f"{expected}",
        ),
        ("model.bin", METAL),
        ("metal", METAL),
    )
    return next(
        (text for pattern, text in kinds if any(folder.glob(pattern))),
        f"not a checkpoint: {expected}",
    )
