"""RowState: what one row of a KV cache holds, apart from any cache, and its file.

K kv heads, D head dim, n tokens, N positions of one layer that are held.

It depends on the package, and on no cache's batch, capacity, chunk or reserve. In a file each layer
is two tensors (K, N, D). The file is mapped, so all processes of a machine share its memory.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Union

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.files import read_file
from gptoss_onnx.manifest import MANIFEST_NAME, CacheLayer, Manifest
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.arguments import folder_path, shown
from gptoss_onnx.runtime.cache_buffer import STORAGE, not_finite
from gptoss_onnx.runtime.cache_layout import MOST, CacheLayout
from gptoss_onnx.runtime.device_memory import DeviceBlock
from gptoss_onnx.runtime.graph_file import GRAPH_LIMIT
from gptoss_onnx.runtime.mapped_tensors import MappedTensors, TensorKind, write_tensors
from gptoss_onnx.runtime.row_memory import RowBlock
from gptoss_onnx.runtime.target import contract_of

if TYPE_CHECKING:
    from gptoss_onnx.runtime.session import Session

FORMAT = "gptoss-onnx row state 1"
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # in safetensors' spelling
_NAME_LIMIT = 60  # characters
_MANIFEST_LIMIT = 16_000_000  # bytes, as of any JSON document

Blocks = tuple[RowBlock, RowBlock]


@dataclass(frozen=True, eq=False)
class RowState:
    """The first tokens of a row with the keys and values that later tokens see; made by
    `KVCache.save_row`, and never changed.

    Attributes:
        tokens: their ids, int64 (n).
        floor: the least length above what window layers keep that the row can be rewound to.
        layers: the package's cache layers.
        dtype: of keys and values.
        layout: what the package's target expects of buffers.
        blocks: keys and values of each layer, (K, N, D), oldest position first, on the device that
            the cache was on. bfloat16 is stored as uint16.
        file: what they are mapped from, if they are.
    """

    tokens: NDArray[np.int64]
    floor: int
    layers: tuple[CacheLayer, ...]
    dtype: str
    layout: CacheLayout
    blocks: tuple[Blocks, ...]
    file: MappedTensors | None = None

    @classmethod
    def without_blocks(
        cls,
        tokens: NDArray[np.int64],
        floor: int,
        layers: Sequence[CacheLayer],
        dtype: str,
        layout: CacheLayout,
    ) -> Self:
        """Return a state whose blocks are yet to be copied."""
        tokens.flags.writeable = False
        return cls(tokens, floor, tuple(layers), dtype, layout, ())

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        source: Union["Session", Package],
        activations: str | None = None,
    ) -> Self:
        """Map a state that `save` wrote for the package of `source`.

        Raises PackageError for a file that is missing, damaged, of another package, or computed
        with other activations than `activations`, if omitted those of the session that `source`
        is.
        """
        package = _package(source)
        manifest, layout = package.manifest, contract_of(package.manifest).layout
        file = MappedTensors.open(
            Path(folder_path("row state", path, "file")), _header_limit(manifest)
        )
        if activations is None and not isinstance(source, Package):
            activations = source.activations
        _check_origin(file, package, activations)
        length = file.integer("length", 0, min(manifest.longest, MOST))
        floor = file.integer("floor", 0, length)
        kinds = _kinds(manifest.cache, manifest.kv_dtype, layout, floor, length)
        found = file.arrays(dict(kinds))
        tokens = found.pop("tokens")
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < manifest.vocab_size:
            raise PackageError(f"{file.path}: found token ids beyond the package's vocabulary")
        for name, array in found.items():
            if not_finite(array, manifest.kv_dtype).any():
                raise PackageError(f"{file.path}: {name}: found numbers that are not finite")
        arrays = list(found.values())
        blocks = tuple(zip(arrays[::2], arrays[1::2], strict=True))
        return cls(tokens, floor, manifest.cache, manifest.kv_dtype, layout, blocks, file)

    def save(self, path: str | os.PathLike[str], source: Union["Session", Package]) -> None:
        """Write the state to a file, atomically; `source` is of the package that it was saved from.

        A session's activations are recorded: int8 ones must not get into exact answers.

        Raises InputError for another package, PackageError where the file cannot be written.
        """
        package = _package(source)
        manifest = package.manifest
        self.check_fits(manifest.cache, manifest.kv_dtype, contract_of(manifest).layout)
        metadata = {
            "format": FORMAT,
            "package": _digest(package),
            "name": package.folder.resolve().name[:_NAME_LIMIT],  # for messages alone
            "length": str(self.length),
            "floor": str(self.floor),
        }
        if not isinstance(source, Package):
            metadata["activations"] = source.activations
        kinds = _kinds(self.layers, self.dtype, self.layout, self.floor, self.length)
        arrays = [self.tokens, *(on_host(block) for pair in self.blocks for block in pair)]
        tensors = [
            (name, kind.dtype, array) for (name, kind), array in zip(kinds, arrays, strict=True)
        ]
        write_tensors(Path(folder_path("row state", path, "file")), metadata, tensors)

    @property
    def length(self) -> int:
        """n."""
        return self.tokens.size

    @property
    def nbytes(self) -> int:
        """Bytes of token ids, keys and values."""
        return self.tokens.nbytes + sum(key.nbytes + value.nbytes for key, value in self.blocks)

    def kept(self, index: int) -> int:
        """Return how many first positions a layer holds whatever its window is."""
        return min(self.layers[index].sink_tokens, self.length)

    def first(self, index: int) -> int:
        """Return the first position after the kept ones that a layer holds."""
        return self.layout.first_needed(self.layers[index], self.floor)

    def held(self, index: int) -> int:
        """Return N of a layer."""
        return _shape(self.layers[index], self.layout, self.floor, self.length)[1]

    @property
    def elements(self) -> int:
        """Numbers of all blocks."""
        shapes = (_shape(layer, self.layout, self.floor, self.length) for layer in self.layers)
        return 2 * sum(map(math.prod, shapes))

    def check_fits(self, layers: Sequence[CacheLayer], dtype: str, layout: CacheLayout) -> None:
        """Refuse caches of another package; raises InputError, and PackageError where the file that
        is mapped was cut off.
        """
        if self.file is not None:
            self.file.check()
        if (self.layers, self.dtype, self.layout) != (tuple(layers), dtype, layout):
            raise InputError(
                "state: found one of another package, expected one that save_row made from a cache "
                "of this package"
            )


def _shape(layer: CacheLayer, layout: CacheLayout, floor: int, length: int) -> tuple[int, int, int]:
    """Return (K, N, D) of one layer."""
    kept = min(layer.sink_tokens, length)
    held = kept + max(0, length - layout.first_needed(layer, floor))
    return layer.kv_heads, held, layer.head_dim


def _kinds(
    layers: Sequence[CacheLayer], dtype: str, layout: CacheLayout, floor: int, length: int
) -> Iterator[tuple[str, TensorKind]]:
    """Yield name and kind of each tensor of a file, in their order."""
    yield "tokens", TensorKind("I64", np.dtype(np.int64), (length,))
    for index, layer in enumerate(layers):
        shape = _shape(layer, layout, floor, length)
        kind = TensorKind(_DTYPES[dtype], np.dtype(STORAGE[dtype]), shape)
        yield f"layers.{index}.key", kind
        yield f"layers.{index}.value", kind


def _header_limit(manifest: Manifest) -> int:
    return 2000 + 400 * len(manifest.cache)  # two tensors a layer, of 120 bytes or so


def _check_origin(file: MappedTensors, package: Package, activations: str | None) -> None:
    """Refuse a file of another package, or of a session with other activations; None: of any."""
    if file.metadata.get("format") != FORMAT:
        raise PackageError(f"{file.path}: not a row state (no format: {FORMAT!r})")
    if file.metadata.get("package") != _digest(package):
        name = shown(file.metadata.get("name", "one without a name"))
        raise PackageError(
            f"{file.path}: saved from another package, {name}, than {package.folder}; run its "
            "tokens again"
        )
    found = file.metadata.get("activations", activations)
    if activations is not None and found != activations:
        raise PackageError(
            f"{file.path}: computed with activations {shown(found)}, expected those of this "
            f"session, {activations}; run its tokens again"
        )


def _package(source: Union["Session", Package]) -> Package:
    return source if isinstance(source, Package) else source.package


def on_host(block: RowBlock) -> NDArray[Any]:
    """Return a block of a state in memory of the CPU."""
    return block.numpy() if isinstance(block, DeviceBlock) else block


def _digest(package: Package) -> str:
    """Return what tells a package from others: its manifest, which pins the weight files, and its
    graph.
    """
    manifest = read_file(package.folder / MANIFEST_NAME, _MANIFEST_LIMIT, PackageError)
    graph = read_file(package.graph, GRAPH_LIMIT, PackageError)
    return hashlib.sha256(hashlib.sha256(manifest).digest() + graph).hexdigest()
