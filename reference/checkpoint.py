"""Open a gpt-oss checkpoint where it lies: configuration, layout and memory-mapped tensors."""

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.fields import Problems, shown
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import CONFIG, note_refused
from gptoss_onnx.checkpoint.locate import locate
from gptoss_onnx.checkpoint.shards import Shards, read_shards
from gptoss_onnx.checkpoint.tensors import (
    Layout,
    TensorInfo,
    compare,
    detect_layout,
    element_count,
    expected_tensors,
    refuse_openai_names,
)
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import open_regular
from gptoss_onnx.reference.config import ModelConfig

# keys that tools have written
QUANTIZATIONS = ("quantization_config", "compression_config", "quantization")


class Checkpoint:
    """An opened checkpoint: every name, shape, dtype and extent is checked; weights are read when
    asked for.

    A context manager that owns the file handles. Tensors it gave out stay valid after it is closed:
    each holds its own mapping of its part of the file, private and copy-on-write, so that writing
    to one never reaches the disk.
    """

    def __init__(
        self, source: CheckpointFolder, config: ModelConfig, layout: Layout, shards: Shards
    ) -> None:
        self.folder = source.path
        self.config = config
        self.layout = layout
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(shards.tensors)
        self.files = tuple(sorted(shards.files))
        self.file_names: Mapping[Path, str] = MappingProxyType(shards.files)
        self._source = source
        self._handles: dict[Path, BinaryIO] = {}
        self._stack = ExitStack()
        self._closed = False

    def load(self, name: str) -> Tensor:
        """Return one tensor as stored (uint8 for MXFP4 blocks and scales), mapped from its file.

        Raises CheckpointError for an unknown name, a closed checkpoint, or a file that has changed
        since the checkpoint was opened.
        """
        if self._closed:
            raise CheckpointError(
                f"{self.folder}: the checkpoint is closed; load inside its `with` block"
            )
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(f"{self.folder}: no tensor {name!r} among {len(self.tensors)}")
        if not info.nbytes:
            return torch.empty(info.shape, dtype=info.torch_dtype)
        handle = self._handle(info.file)
        self._source.check_open(self.file_names[info.file], handle.fileno())
        start = info.offset - info.offset % mmap.ALLOCATIONGRANULARITY
        length = info.offset - start + info.nbytes
        mapped = mmap.mmap(handle.fileno(), length, offset=start, access=mmap.ACCESS_COPY)
        at = info.offset - start
        # Writers align tensors to their element size; where one did not, a copy does it.
        buffer = bytearray(mapped[at:]) if at % info.torch_dtype.itemsize else mapped
        flat = torch.frombuffer(
            buffer,
            dtype=info.torch_dtype,
            count=element_count(info.shape),
            offset=at if buffer is mapped else 0,
        )
        return flat.reshape(info.shape)

    def state_dict(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every (name, tensor) in the order of the computation, each mapped when it is
        reached.
        """
        return ((name, self.load(name)) for name in self.tensors)

    def path_of(self, filename: str) -> Path | None:
        """Return the path of a side file such as `tokenizer.json`, or None where the checkpoint has
        none.

        Raises CheckpointError for what a checkpoint's files may not be: see
        `CheckpointFolder.find`.
        """
        return None if self._source.find(filename) is None else self.folder / filename

    def read(self, filename: str, limit: int) -> bytes | None:
        """Return the bytes of a side file of at most `limit` bytes, or None where the checkpoint
        has none.
        """
        return self._source.read(filename, limit)

    def read_json(self, filename: str) -> dict[str, Any]:
        """Return the JSON object in a file such as `config.json`; raises CheckpointError where
        there is none.
        """
        return self._source.read_json(filename)

    def size_of(self, file: Path) -> int:
        """Return the size in bytes of one of `files`."""
        return self._source.size(self.file_names[file])

    def check_unchanged(self) -> None:
        """Raise CheckpointError where a file of the checkpoint has changed since it was opened or
        looked for.
        """
        self._source.check_unchanged()
        problems = Problems()
        note_refused(self.folder, self.file_names.values(), problems)
        problems.check(str(self.folder))

    def close(self) -> None:
        """Close the files; tensors already loaded stay valid."""
        self._closed = True
        self._handles.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handle(self, path: Path) -> BinaryIO:
        if path not in self._handles:
            try:
                self._handles[path] = self._stack.enter_context(open_regular(path, CheckpointError))
            except FileNotFoundError:
                raise CheckpointError(f"{path}: is gone since the checkpoint was opened") from None
        return self._handles[path]


def open_checkpoint(source: str | os.PathLike[str], cache_dir: Path | None = None) -> Checkpoint:
    """Open a checkpoint folder, a Hugging Face cache snapshot, or a hub id found in the local
    cache.

    Reads `config.json` and the safetensors headers, no weights.

    Args:
        source: a folder, or a hub id such as `openai/gpt-oss-20b`.
        cache_dir: where hub ids are looked up; the user's Hugging Face cache when None.

    Raises:
        CheckpointError: the checkpoint is not there, not gpt-oss, in a layout that is not read, or
            its files do not hold exactly the tensors that `config.json` implies; one message lists
            every problem.
    """
    path = locate(source, cache_dir=cache_dir)
    folder = CheckpointFolder(path)
    problems = Problems()
    shards = read_shards(folder, problems)
    names = shards.tensors.keys() | shards.promised
    if not names:
        problems.check(str(path))
    refuse_openai_names(names, str(path))  # before its config.json, which has other keys as well
    config = _read_config(folder)
    layout = detect_layout(names)
    if layout is None:
        problems.add(
            f"found no expert weights among {len(names)} tensors, expected "
            "model.layers.0.mlp.experts.gate_up_proj_blocks (MXFP4) or .gate_up_proj (dense)"
        )
        raise problems.error(str(path))
    expected = expected_tensors(config, layout)
    compare(shards.tensors, shards.files, expected, shards.promised, problems)
    problems.check(str(path))
    shards.tensors = {name: shards.tensors[name] for name in expected}
    return Checkpoint(folder, config, layout, shards)


def _read_config(folder: CheckpointFolder) -> ModelConfig:
    document, path = folder.read_json(CONFIG), folder.path / CONFIG
    for key in QUANTIZATIONS:
        quantization = document.get(key)
        if quantization is not None:
            method = (
                quantization.get("quant_method") if isinstance(quantization, dict) else quantization
            )
            if method != "mxfp4":
                raise CheckpointError(
                    f"{path}: found quantization method {shown(method)} in {key}, expected 'mxfp4' "
                    f"or no {key}"
                )
    if document.get("auto_map") is not None:
        raise CheckpointError(
            f"{path}: found auto_map, which names Python code of the checkpoint's own: it is never "
            "run; "
            "take the key out if the model is plain gpt-oss"
        )
    return ModelConfig.from_json(document, str(path))
