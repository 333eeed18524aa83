"""Read the headers of a checkpoint's safetensors files: which tensor lies where. No weight byte is read.

Format: an 8-byte little-endian header length, a JSON header, then the tensors without gaps
(https://github.com/huggingface/safetensors#format).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import safetensors_header
from gptoss_onnx.reference.fields import Problems
from gptoss_onnx.reference.layout import TORCH_DTYPES, TensorInfo, element_count

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass
class Shards:
    """The tensors found, their real files with the names used in the folder, and what the index promised."""

    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    files: dict[Path, str] = field(default_factory=dict)
    promised: set[str] = field(default_factory=set)


def read_shards(folder: Path, problems: Problems) -> Shards:
    """Read every header of the checkpoint in `folder`; `model.safetensors` wins over an index, as elsewhere.

    What is wrong with a file is noted in `problems`, by its name in the folder. Raises CheckpointError when
    the folder holds no safetensors checkpoint, or its index cannot be read.
    """
    shards = Shards()
    if _present(folder / SINGLE):
        _read_file(folder / SINGLE, shards, problems)
    elif _present(folder / INDEX):
        _read_indexed(folder, shards, problems)
    else:
        raise CheckpointError(f"{folder}: {_what_instead(folder)}")
    return shards


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError when it is missing, dangling or something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: {_absence(path)}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not JSON ({error}); download it again") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: found a JSON {type(document).__name__}, expected an object")
    return document


def _read_indexed(folder: Path, shards: Shards, problems: Problems) -> None:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{folder / INDEX}: no weight_map from tensor names to file names; download it again")
    shards.promised.update(weight_map)
    unreadable = set()
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            problems.add(f"{INDEX}: found file {name!r}, expected a name inside the folder")
            unreadable.add(name)
        elif not _read_file(folder / name, shards, problems):
            unreadable.add(name)
    found = {tensor: info.file for tensor, info in shards.tensors.items()}
    for tensor, name in weight_map.items():
        if name in unreadable:
            continue
        if tensor not in found:
            problems.add(f"{tensor}: missing in {name}, where {INDEX} lists it")
        elif found[tensor] != (folder / name).resolve():
            problems.add(f"{tensor}: found in {shards.files[found[tensor]]}, but {INDEX} lists it in {name}")
    for tensor in sorted(found.keys() - weight_map.keys()):
        problems.add(f"{tensor}: found in {shards.files[found[tensor]]}, but not listed in {INDEX}")


def _read_file(path: Path, shards: Shards, problems: Problems) -> bool:
    """Add one file's tensors; False when its header cannot be read (noted, and nothing added)."""
    if not path.is_file():
        problems.add(f"{path.name}: {_absence(path)}")
        return False
    real = path.resolve()
    try:
        header = safetensors_header(real)
        entries = json.loads(header, object_pairs_hook=_no_repeats)
        infos = [
            TensorInfo(name, entry["dtype"], tuple(entry["shape"]), real, 8 + len(header) + begin, end - begin)
            for name, entry in entries.items()
            if name != "__metadata__"
            for begin, end in (entry["data_offsets"],)
        ]
        _check_extents(path, infos, 8 + len(header), problems)
    except OSError as error:
        problems.add(f"{path.name}: cannot be read ({error.strerror})")
        return False
    except CheckpointError as error:
        problems.add(_pointer(path) or str(error).replace(str(real), path.name))
        return False
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problems.add(f"{path.name}: malformed safetensors header ({error}); download it again")
        return False
    shards.files[real] = path.name
    for info in infos:
        if info.name in shards.tensors:
            other = shards.files[shards.tensors[info.name].file]
            problems.add(f"{info.name}: found twice, in {other} and in {path.name}")
        shards.tensors.setdefault(info.name, info)
    return True


def _check_extents(path: Path, infos: list[TensorInfo], start: int, problems: Problems) -> None:
    """Note tensors whose bytes are not those of their shape, overlap, leave gaps or pass the file's end."""
    size = path.stat().st_size
    end = start
    for info in sorted(infos, key=lambda info: (info.offset, info.nbytes)):
        dtype = TORCH_DTYPES.get(info.dtype)  # any other is refused later, as unexpected
        if dtype is not None and info.nbytes != element_count(info.shape) * dtype.itemsize:
            problems.add(
                f"{info.name}: {info.nbytes} bytes in {path.name}, expected "
                f"{element_count(info.shape) * dtype.itemsize} for {info.dtype} {info.shape}"
            )
        elif info.offset != end:
            problems.add(f"{info.name}: begins at byte {info.offset} of {path.name}, expected {end}")
        end = info.offset + info.nbytes
    if end > size:
        cut = sum(info.offset + info.nbytes > size for info in infos)
        problems.add(
            f"{path.name}: found {size} bytes, its header expects {end}: cut off, {cut} of {len(infos)} "
            "tensors are incomplete; download it again"
        )
    elif end < size:
        problems.add(f"{path.name}: found {size} bytes, its header expects {end}; download it again")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} appears twice")
    return document


def _present(path: Path) -> bool:
    return path.is_symlink() or path.exists()  # a dangling link is a checkpoint to complain about


def _absence(path: Path) -> str:
    if path.is_symlink():
        return f"dangling symlink to {path.readlink()}: the download is incomplete, repeat it"
    return "no such file: the checkpoint is incomplete, download it again"


def _pointer(path: Path) -> str | None:
    with path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            return f"{path.name}: found a git-lfs pointer instead of the weights; fetch them with: git lfs pull"
    return None


def _what_instead(folder: Path) -> str:
    """Say what a folder without a safetensors checkpoint holds, and what was expected."""
    expected = f"expected {SINGLE} or {INDEX} in Hugging Face layout"
    kinds = (
        ("*.gguf", f"found GGUF files, which are not read; {expected}"),
        (
            "pytorch_model*.bin*",
            f"found PyTorch .bin weights only, which are not read (they can run code); {expected}",
        ),
        ("adapter_model.safetensors", f"found an adapter, merge it into its base model first; {expected}"),
        ("model-*-of-*.safetensors", f"found shards but no {INDEX}; download it as well"),
        ("original", f"found original/ only: the OpenAI original layout is not read yet; {expected}"),
    )
    return next((text for pattern, text in kinds if any(folder.glob(pattern))), f"not a checkpoint: {expected}")
