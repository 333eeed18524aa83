"""Read a stranger's ONNX file before ONNX Runtime opens it: what it holds, and that nothing lies
outside its folder.

The file is mapped, not read: its weights may lie inside. Nothing of it is trusted or run here.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import is_plain_name, open_regular
from gptoss_onnx.package import own_file
from gptoss_onnx.runtime.graph_file import GraphFile, Initializer, Node

# Fields read in all. 36 layers of 128 experts, each with nodes of its own, take a million.
FIELDS_LIMIT = 4_000_000
ROUNDED_OPS = ("MatMulNBits", "GatherBlockQuantized", "QMoE", "DequantizeLinear", "MatMulInteger")


@dataclass(frozen=True)
class ForeignGraph:
    """One ONNX file of a folder, and the nodes and initializers in it."""

    path: Path
    graph: GraphFile

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Read the file `name` of a folder.

        Raises PackageError if it is not a regular file of the folder, is no ONNX model, or reads
        weights that are not whole in a regular file of the folder.
        """
        path = own_file(folder, name)
        try:
            graph = _read(path)
        except FileNotFoundError:
            raise PackageError(f"{path}: no such file; export the model again") from None
        except (ValueError, KeyError) as error:
            raise PackageError(f"{path}: not an ONNX model that can be read ({error})") from error
        sizes: dict[str, int] = {}
        for initializer in graph.initializers.values():
            _check_external(path, initializer, sizes)
        return cls(path, graph)

    @property
    def nbytes(self) -> int:
        """Bytes of the file and of the weight files that it reads."""
        located = {
            initializer.external.location
            for initializer in self.graph.initializers.values()
            if initializer.external is not None
        }
        files = [self.path, *(self.path.parent / name for name in located)]
        return sum(file.stat().st_size for file in files)

    def nodes(self, op: str) -> list[Node]:
        """Return the nodes of one operator."""
        return [node for node in self.graph.nodes if node.op == op]

    @property
    def rounded(self) -> tuple[str, ...]:
        """Which ops multiply weights that are stored as integers, with their bits where known."""
        found = []
        for op in ROUNDED_OPS:
            bits = {
                node.attributes.get("bits", node.attributes.get("expert_weight_bits", 0))
                for node in self.nodes(op)
            }
            found += [f"{op} of {count} bits" if count else op for count in sorted(bits)]
        return tuple(found)


def _read(path: Path) -> GraphFile:
    with open_regular(path, PackageError) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError("it is empty")
        # Left to the garbage collector: slices of the map may live on in an error's traceback.
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return GraphFile.parse(memoryview(content), FIELDS_LIMIT)


def _check_external(path: Path, initializer: Initializer, sizes: dict[str, int]) -> None:
    """Refuse weights that are not whole in a regular file beside the graph; `sizes` remembers
    files.
    """
    place = initializer.external
    if place is None:
        return
    if place.location not in sizes:
        if not is_plain_name(place.location):
            raise PackageError(
                f"{path}: {initializer.name!r:.80} reads the file {place.location!r:.80}, expected "
                "one beside the graph"
            )
        file = own_file(path.parent, place.location)
        try:
            with open_regular(file, PackageError) as opened:
                sizes[place.location] = os.fstat(opened.fileno()).st_size
        except FileNotFoundError:
            raise PackageError(
                f"{file}: no such file, but {path.name} reads its weights from it"
            ) from None
    if place.offset + place.length > sizes[place.location]:
        raise PackageError(
            f"{path}: {initializer.name!r:.80} reads {place.length} bytes at {place.offset} of "
            f"{place.location}, which has {sizes[place.location]}; the file is cut off"
        )
