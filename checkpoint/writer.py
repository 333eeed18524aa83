"""Write safetensors files tensor by tensor, so that no more than a piece of one is ever in
memory.
"""

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gptoss_onnx.checkpoint.folder_kinds import INDEX, SINGLE
from gptoss_onnx.checkpoint.tensors import TORCH_DTYPES, element_count


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to be written; `dtype` in safetensors' spelling."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return TORCH_DTYPES[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return element_count(self.shape) * self.itemsize


Content = Callable[[PlannedTensor], Iterable[bytes | memoryview]]


def plan_files(
    tensors: Iterable[PlannedTensor], shard_bytes: int
) -> dict[str, list[PlannedTensor]]:
    """Distribute tensors in their order over files of at most `shard_bytes` (one larger tensor gets
    its own).

    One file is `model.safetensors`; several are numbered as the published gpt-oss shards are, from
    0 to the last number: `model-00000-of-00002.safetensors`.
    """
    shards: list[list[PlannedTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.nbytes
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    last = len(shards) - 1
    return {
        f"model-{number:05d}-of-{last:05d}.safetensors": shard
        for number, shard in enumerate(shards)
    }


def write_safetensors(
    path: Path, tensors: Iterable[PlannedTensor], content: Content | None
) -> None:
    """Write one file with the bytes that `content` yields for each tensor; None leaves holes, read
    as zeros.

    Wider elements come first, as in the safetensors library, so that every tensor is aligned to its
    elements.
    """
    ordered = sorted(tensors, key=lambda tensor: -tensor.itemsize)
    head, offsets = safetensors_head(ordered, 8)
    with path.open("wb") as file:
        file.write(head)
        if content is None:
            file.truncate(len(head) + sum(tensor.nbytes for tensor in ordered))
            return
        for tensor in ordered:
            assert file.tell() == offsets[tensor.name]
            written = sum(file.write(piece) for piece in content(tensor))
            assert written == tensor.nbytes, (
                f"{tensor.name}: {written} bytes instead of {tensor.nbytes}"
            )


def safetensors_head(
    tensors: Iterable[PlannedTensor], alignment: int
) -> tuple[bytes, dict[str, int]]:
    """Return what a file begins with, and the offset in it of each tensor, one behind the other in
    their order.

    Args:
        tensors: what the file holds.
        alignment: of the first tensor, in bytes; the header is filled up with blanks.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begins: dict[str, int] = {}
    end = 0
    for tensor in tensors:
        begins[tensor.name] = end
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-(8 + len(encoded)) % alignment)
    head = struct.pack("<Q", len(encoded)) + encoded
    return head, {name: len(head) + begin for name, begin in begins.items()}


def index_document(files: Mapping[str, list[PlannedTensor]]) -> dict[str, object]:
    """Return the content of `model.safetensors.index.json` for several files."""
    assert len(files) > 1, f"{INDEX} goes with several files"
    weight_map = {tensor.name: name for name, tensors in files.items() for tensor in tensors}
    total = sum(tensor.nbytes for tensors in files.values() for tensor in tensors)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
