"""StoredCheckpoint: the opened files of a checkpoint. A tensor is mapped when it is asked for."""

import mmap
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Generic, Self, TypeVar

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.adapter import IN_PACKAGE, AdapterFiles
from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.folder_kinds import note_refused
from gptoss_onnx.checkpoint.product import Product
from gptoss_onnx.checkpoint.shards import SUFFIX
from gptoss_onnx.checkpoint.side_files import SideFiles
from gptoss_onnx.checkpoint.source import Source
from gptoss_onnx.checkpoint.tensors import Parameter, TensorInfo, element_count
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import open_regular

Config = TypeVar("Config")
T = TypeVar("T")
_MOST_KEPT = 16  # results of `keep`


class StoredCheckpoint(Generic[Config]):
    """An opened checkpoint, whose names, shapes, dtypes and extents were checked.

    A context manager that owns the file handles. Tensors it gave out stay valid after it is closed:
    each holds its own mapping of its part of the file, private and copy-on-write, so that writing
    to one never reaches the disk.

    Attributes:
        folder: the checkpoint's; of a GGUF checkpoint its file.
        layout: of its files, as `Source` names it.
        document: what its `config.json` says, or what other files say in its keys;
            `document_path` names the file for messages.
        config: the model's, as `config.json` and the adapters make it; `base_config` is what
            `config.json` alone says.
        adapters: what is added to the checkpoint's own weights, in this order.
        products: by the names of projections, what is added to their results instead; their
            matrices are parameters then.
        settings: the keys of `config.json` that were read, with their values.
        tensors: what is stored, by name.
        parameters: what the model is made of, by the model's name, in the order of the computation.
        named: the same by the name that graphs give them.
        files: the real files; `file_names` has their names in the folder.
        notes: what a user should know of how it was read.
    """

    def __init__(
        self,
        source: Source,
        config: Config,
        settings: Mapping[str, Any],
        parameters: Mapping[str, Parameter],
        notes: tuple[str, ...] = (),
        tokenizer: Path | None = None,
        base_config: Config | None = None,
        adapters: Sequence[AdapterFiles] = (),
        products: Mapping[str, Product] | None = None,
    ) -> None:
        shards = source.shards
        self.folder, self.layout = source.path, source.layout
        self.document, self.document_path = source.document, source.where
        self.config = config
        self.base_config = config if base_config is None else base_config
        self.adapters = tuple(adapters)
        self.products: Mapping[str, Product] = MappingProxyType(dict(products or {}))
        self.settings = settings
        self.notes = notes
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(shards.tensors)
        self.parameters = MappingProxyType(dict(parameters))
        self.named = MappingProxyType({entry.name: entry for entry in parameters.values()})
        self.files = tuple(sorted(shards.files))
        self.file_names: Mapping[Path, str] = MappingProxyType(shards.files)
        self._files = shards.folder
        self._beside = SideFiles(source.beside, tokenizer)
        everything = [shards, *(adapter.shards for adapter in adapters)]
        self._places = {
            real: (s.folder, name) for s in everything for real, name in s.files.items()
        }
        self._handles: dict[Path, BinaryIO] = {}
        self._stack = ExitStack()
        self._kept: dict[Hashable, Any] = {}
        self._keeping = threading.Lock()
        self._closed = False

    @property
    def linkable(self) -> bool:
        """Whether a package may hold links to the files: those that its clients can read."""
        return all(name.endswith(SUFFIX) for name in self.file_names.values())

    def load(self, name: str) -> Tensor:
        """Return one tensor as stored (uint8 for MXFP4 blocks and scales, float8 for FP8 weights
        that have scales of their own), mapped from its file.

        Raises CheckpointError for an unknown name, a closed checkpoint, or a file that has changed
        since the checkpoint was opened.
        """
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(f"{self.folder}: no tensor {name!r} among {len(self.tensors)}")
        return self.load_tensor(info)

    def load_tensor(self, info: TensorInfo) -> Tensor:
        """Return a tensor of one of the checkpoint's files, as `load` does."""
        if not info.nbytes:
            return torch.empty(info.shape, dtype=info.torch_dtype)
        handle = self._handle(info.file)
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

    def read_bytes(self, tensor: TensorInfo, first: int, end: int) -> Tensor:
        """Return some bytes of a tensor as they are stored, uint8 (end − first).

        They are read, not mapped: faster where each is looked at once. Raises CheckpointError for a
        closed checkpoint, or a file that has changed since the checkpoint was opened.
        """
        content = torch.empty(end - first, dtype=torch.uint8)  # not filled before it is read
        descriptor, room = self._handle(tensor.file).fileno(), content.numpy().data
        while room:  # the system reads 2 GiB at most
            count = os.preadv(descriptor, [room], tensor.offset + end - len(room))
            if not count:
                raise CheckpointError(f"{tensor.file}: became shorter while it was read")
            room = room[count:]
        return content

    def read_tensor_rows(self, info: TensorInfo, first: int, end: int) -> Tensor:
        """Return rows of a tensor, (end − first, C), read as `read_bytes` does."""
        size = info.shape[-1] * info.torch_dtype.itemsize
        content = self.read_bytes(info, first * size, end * size)
        return content.view(info.torch_dtype).view(end - first, info.shape[-1])

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when the key was new; it is forgotten after some others."""
        with self._keeping:
            if key not in self._kept:
                self._kept[key] = make()
                if len(self._kept) > _MOST_KEPT:
                    del self._kept[next(iter(self._kept))]
            found: T = self._kept[key]
        return found

    def load_parameter(self, name: str) -> Tensor:
        """Return one parameter by the model's name: mapped if it is one tensor, else in memory."""
        parameter = self.parameters[name]
        if parameter.view is not None:
            return self.load_tensor(parameter.view).reshape(parameter.shape)
        return self.load_rows(parameter, 0, parameter.rows).reshape(parameter.shape)

    def load_rows(self, parameter: Parameter, first: int, end: int) -> Tensor:
        """Return rows of a parameter, as `Parameter.load_rows` does from these files."""
        return parameter.load_rows(self, first, end)

    @property
    def viewed(self) -> Mapping[str, TensorInfo]:
        """All tensors that may be parameters as they are: those of adapters if there are
        `products`, too.
        """
        more = self.adapters if self.products else ()
        return dict(self.tensors) | {k: v for one in more for k, v in one.shards.tensors.items()}

    @property
    def placed(self) -> Mapping[Path, str]:
        """The real files that they lie in, and what a package calls them."""
        names = dict(self.file_names)
        for adapter in self.adapters if self.products else ():
            taken, name = set(names.values()), IN_PACKAGE
            while name in taken:
                name = f"_{name}"
            names |= dict.fromkeys(adapter.shards.files, name)
        return names

    def read_rows(self, parameter: Parameter, first: int, end: int) -> Tensor:
        """Return rows of a parameter, as `Parameter.read_rows` does from these files."""
        return parameter.read_rows(self, first, end)

    def state_dict(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) of all that is stored, in the order of the computation."""
        return ((name, self.load(name)) for name in self.tensors)

    def path_of(self, filename: str) -> Path | None:
        """Return the path of a side file such as `tokenizer.json`; None if the checkpoint has none.

        Raises CheckpointError for what a checkpoint's files may not be, as `CheckpointFolder.find`.
        """
        return self._beside.path_of(filename)

    def holds(self, filename: str) -> bool:
        """Say whether there is such a side file, or a GGUF file has its content."""
        return self._beside.holds(filename)

    def read(self, filename: str, limit: int) -> bytes | None:
        """Return the bytes of a side file of at most `limit` bytes; None if there is none."""
        return self._beside.read(filename, limit)

    def read_json(self, filename: str) -> dict[str, Any]:
        """Return the JSON object in a side file such as `generation_config.json`.

        Raises CheckpointError if the file is not there or holds something else.
        """
        return self._beside.read_json(filename)

    def size_of(self, file: Path) -> int:
        """Return the size in bytes of a file that parameters lie in."""
        folder, name = self._places[file]
        return folder.size(name)

    def check_unchanged(self) -> None:
        """Raise CheckpointError if a file has changed since it was opened or looked for."""
        self._files.check_unchanged()
        self._beside.check_unchanged()
        for adapter in self.adapters:
            adapter.folder.check_unchanged()
        if self.folder.is_dir():
            problems = Problems()
            note_refused(self.folder, self.file_names.values(), problems)
            problems.check(str(self.folder))

    def close(self) -> None:
        """Close the files; tensors already loaded stay valid."""
        self._closed = True
        self._handles.clear()
        self._kept.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _handle(self, path: Path) -> BinaryIO:
        """Return an open file, which is as it was when the checkpoint was opened."""
        if self._closed:
            raise CheckpointError(
                f"{self.folder}: the checkpoint is closed; load inside its `with` block"
            )
        if path not in self._handles:
            try:
                self._handles[path] = self._stack.enter_context(open_regular(path, CheckpointError))
            except FileNotFoundError:
                raise CheckpointError(f"{path}: is gone since the checkpoint was opened") from None
        folder, name = self._places[path]
        folder.check_open(name, self._handles[path].fileno())
        return self._handles[path]
