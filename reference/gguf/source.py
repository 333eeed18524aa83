"""Read a GGUF file of gpt-oss in the terms of Hugging Face's layout.

What it stores in float32, float16 or bfloat16 are tensors as they lie. MXFP4 blocks and Q8_0 are
parameters that are computed from its bytes, and so is what it stores of gates and ups apart.

Legend: E experts, I expert width, H hidden size, B blocks of a row.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.gguf.blocks import (
    BLOCK,
    MXFP4_KINDS,
    Q8_0,
    Alternating,
    ColumnsOfExperts,
    Mxfp4Blocks,
    Mxfp4Experts,
    Mxfp4Scales,
    Q8Rows,
)
from gptoss_onnx.checkpoint.gguf.container import Gguf, read_gguf
from gptoss_onnx.checkpoint.gguf.kinds import OLLAMA_MXFP4
from gptoss_onnx.checkpoint.gguf.side_files import GgufSideFiles
from gptoss_onnx.checkpoint.shards import Shards
from gptoss_onnx.checkpoint.source import Source
from gptoss_onnx.checkpoint.tensors import FLOATS, Computation, Parameter, TensorInfo
from gptoss_onnx.reference.gguf.document import check_architecture, document_of
from gptoss_onnx.reference.gguf.names import (
    DOWN,
    GATE,
    GATE_UP,
    LAYER,
    QKV,
    TRUNK,
    UP,
    gguf_name,
    split_name,
)

_EMBEDDING = "token_embd.weight"


def read_gguf_source(path: Path, problems: Problems) -> Source:
    """Return the source that a GGUF file is, with its other parts.

    What is wrong with tensors is noted in `problems`. Raises CheckpointError for a file that cannot
    be read, and for the metadata of another model or none.
    """
    folder = CheckpointFolder(path.parent)
    found = read_gguf(folder, path.name, problems)
    where = str(path)
    architecture = check_architecture(found.metadata, where)
    reader = _Reader(found, architecture, problems)
    reader.read()
    table = found.tensors.get(_EMBEDDING)
    if table is None:
        problems.add(f"{_EMBEDDING}: missing, expected the embedding")
        raise problems.error(where)
    of_metadata = Problems()
    document = document_of(found.metadata, table.shape[0], reader.mxfp4, of_metadata)
    of_metadata.check(where)
    shards = Shards(folder, reader.tensors, dict(found.files))
    beside = GgufSideFiles(folder, where, found.metadata)
    return Source(shards, beside, document, where, "gguf", path, reader.computed, gguf_name)


class _Reader:
    """Sorts the tensors of a file into those that lie as they are and those to be computed.

    Attributes:
        tensors: the former, by Hugging Face's names.
        computed: the latter, by Hugging Face's names.
        mxfp4: whether experts are MXFP4.
    """

    def __init__(self, found: Gguf, architecture: str, problems: Problems) -> None:
        self._architecture = architecture
        self.tensors: dict[str, TensorInfo] = {}
        self.computed: dict[str, Parameter] = {}
        self.mxfp4 = False
        self._found, self._problems = found, problems

    def read(self) -> None:
        """Go through all tensors of the file."""
        experts: dict[int, dict[str, TensorInfo]] = {}
        for name, info in self._found.tensors.items():
            if info.dtype == OLLAMA_MXFP4 and self._architecture != "gptoss":
                self._problems.add(f"{name}: found type 4, which only ollama's own files have")
            place = split_name(name)
            if place is None:
                self._add(TRUNK.get(name), info)
            elif place[1].startswith(f"{QKV}."):
                self._add_qkv(place[0], place[1].removeprefix(f"{QKV}."), info)
            elif place[1].startswith((GATE, UP, GATE_UP, DOWN)) and place[1] not in LAYER:
                experts.setdefault(place[0], {})[place[1]] = info
            elif place[1] in LAYER:
                self._add(f"model.layers.{place[0]}.{LAYER[place[1]]}", info)
            else:
                self._add(None, info)
        kinds = {info.dtype for layer in experts.values() for info in layer.values()} - {"F32"}
        self.mxfp4 = bool(kinds & set(MXFP4_KINDS))
        for layer, tensors in experts.items():
            self._add_experts(f"model.layers.{layer}.mlp.experts.", tensors)

    def _add(self, name: str | None, info: TensorInfo) -> None:
        """Take a tensor that is a parameter by itself, or note that it is not expected."""
        if name is None:
            place = self._found.files[info.file]
            self._problems.add(f"{info.name}: unexpected, found in {place}")
        elif info.dtype == Q8_0:
            shape = _shape(info)
            self.computed[name] = Parameter(name, "F32", shape, (info,), Q8Rows(info))
        elif info.dtype in FLOATS:
            self.tensors[name] = replace(info, name=name)
        else:
            self._problems.add(f"{info.name}: found {info.dtype}, expected {', '.join(FLOATS)}")

    def _add_experts(self, prefix: str, tensors: Mapping[str, TensorInfo]) -> None:
        """Take the experts of a layer: gates and ups together, and downs."""
        both = (GATE_UP,) if f"{GATE_UP}.weight" in tensors else (GATE, UP)
        known = {f"{part}.weight" for part in (*both, DOWN)} | {f"{GATE}.bias", f"{UP}.bias"}
        for name in sorted(tensors.keys() - known):
            self._add(None, tensors[name])
        for stem, parts in (("gate_up_proj", both), ("down_proj", (DOWN,))):
            weights = self._all(tensors, [f"{part}.weight" for part in parts])
            if weights:
                in_mxfp4 = weights[0].dtype in MXFP4_KINDS
                (self._add_mxfp4 if in_mxfp4 else self._add_columns)(prefix + stem, weights)
        biases = self._all(tensors, [f"{GATE}.bias", f"{UP}.bias"])
        if biases:
            gate, up = biases
            name = f"{prefix}gate_up_proj_bias"
            count, width = gate.shape if len(gate.shape) == 2 else (1, 0)
            self._compute(name, gate.dtype, (count, 2 * width), biases, Alternating((gate, up)))

    def _add_qkv(self, layer: int, end: str, info: TensorInfo) -> None:
        """Take q, k and v, which lie one behind the other; their rows follow from the metadata."""
        keys = ("head_count", "head_count_kv", "key_length")
        read = [self._found.metadata.get(f"{self._architecture}.attention.{key}") for key in keys]
        heads, kv_heads, head_dim = (value if type(value) is int else 0 for value in read)
        counts = {"q": heads * head_dim, "k": kv_heads * head_dim, "v": kv_heads * head_dim}
        rows = info.shape[0]
        if sum(counts.values()) != rows or min(counts.values()) <= 0:
            self._problems.add(
                f"{info.name}: found {rows} rows, expected {sum(counts.values())}, those of q, k "
                "and v"
            )
            return
        first, each = 0, info.nbytes // rows
        for part, count in counts.items():
            shape, offset = (count, *info.shape[1:]), info.offset + first * each
            name = f"model.layers.{layer}.self_attn.{part}_proj.{end}"
            self._add(name, replace(info, shape=shape, offset=offset, nbytes=count * each))
            first += count

    def _all(self, tensors: Mapping[str, TensorInfo], names: list[str]) -> tuple[TensorInfo, ...]:
        """Return the tensors of these names; none if one is missing, or if they are not alike, a
        fault that is noted.
        """
        found = tuple(tensors[name] for name in names if name in tensors)
        if len(found) < len(names):
            return ()
        first = found[0]
        for other in found[1:]:
            if (other.dtype, other.shape) != (first.dtype, first.shape):
                self._problems.add(
                    f"{other.name}: found {other.dtype} {_shape(other)}, expected what "
                    f"{first.name} is, {first.dtype} {_shape(first)}"
                )
                return ()
        return found

    def _add_mxfp4(self, name: str, weights: tuple[TensorInfo, ...]) -> None:
        if self._has_axes(weights, 4):
            count, rows, blocks, _ = weights[0].shape
            rows *= len(weights)
            experts = Mxfp4Experts(weights)
            shape = (count, rows, blocks, BLOCK // 2)
            self._compute(f"{name}_blocks", "U8", shape, weights, Mxfp4Blocks(experts))
            self._compute(f"{name}_scales", "U8", shape[:3], weights, Mxfp4Scales(experts))

    def _add_columns(self, name: str, weights: tuple[TensorInfo, ...]) -> None:
        if self._has_axes(weights, 4 if weights[0].dtype == Q8_0 else 3):
            count, rows, columns = _shape(weights[0])
            dtype = "BF16" if weights[0].dtype == Q8_0 else weights[0].dtype
            shape = (count, columns, rows * len(weights))
            self._compute(name, dtype, shape, weights, ColumnsOfExperts(weights))

    def _has_axes(self, weights: tuple[TensorInfo, ...], count: int) -> bool:
        """Say whether these are the matrices of all experts; note what is not."""
        if len(weights[0].shape) != count:
            self._problems.add(
                f"{weights[0].name}: found shape {_shape(weights[0])}, expected three axes: "
                "experts, rows, columns"
            )
        return len(weights[0].shape) == count

    def _compute(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        sources: tuple[TensorInfo, ...],
        computation: Computation,
    ) -> None:
        self.computed[name] = Parameter(name, dtype, shape, sources, computation)


def _shape(info: TensorInfo) -> tuple[int, ...]:
    """Return the shape of what a tensor's bytes stand for."""
    if info.dtype in (*MXFP4_KINDS, Q8_0):
        return (*info.shape[:-2], info.shape[-2] * BLOCK)
    return info.shape
