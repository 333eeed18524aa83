"""OpenAI's own layout of gpt-oss, `original/`: every tensor of Hugging Face's layout is a range of
bytes in it.

The names are those of `gpt_oss/torch/model.py` and `weights.py` in github.com/openai/gpt-oss. The
rows of `attn.qkv` are those of q, then of k, then of v. Experts are MXFP4 in the same bytes.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import note_refused
from gptoss_onnx.checkpoint.shards import MOST_FILES, SUFFIX, Shards, read_named
from gptoss_onnx.checkpoint.tensors import (
    BYTES,
    FLOATS,
    ExpectedTensor,
    TensorInfo,
    note_differences,
)
from gptoss_onnx.errors import CheckpointError

_LAYER = re.compile(r"block\.[0-9]+\.")
_NUMBERED = re.compile(r"(.*-)([0-9]{5})-of-([0-9]{5})\.safetensors")
_BLOCK, _BLOCK_BYTES = 32, 16  # values of MXFP4 that share a scale, and what they take


@dataclass(frozen=True)
class Sizes:
    """What the shapes depend on; `queries` and `keys` are rows: heads times the width of one."""

    layers: int
    vocabulary: int
    hidden: int
    heads: int
    queries: int
    keys: int
    experts: int
    width: int


@dataclass(frozen=True)
class Stored:
    """A tensor of this layout: its shape, whether it holds bytes of MXFP4, and the tensors of
    Hugging Face's layout that its rows are, with how many each has.
    """

    shape: tuple[int, ...]
    packed: bool
    parts: tuple[tuple[str, int], ...]

    def ranges(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of each part, in bytes, where the tensor lies so in a file."""
        row = length // self.shape[0]
        for _, rows in self.parts:
            yield offset, rows * row
            offset += rows * row


def is_named_so(names: Collection[str]) -> bool:
    """Say whether tensors are named as in this layout."""
    return any(_LAYER.match(name) for name in names)


def read_all(folder: CheckpointFolder, problems: Problems) -> Shards:
    """Read the header of every `*.safetensors` in `folder`, as OpenAI's reader does.

    Notes problems as `read_shards` does. Raises CheckpointError where there is no such file, and
    where the names say that some are missing.
    """
    names = sorted(entry.name for entry in folder.path.iterdir() if entry.name.endswith(SUFFIX))
    if not 1 <= len(names) <= MOST_FILES:
        raise CheckpointError(
            f"{folder.path}: found {len(names)} files *{SUFFIX}, expected 1 to {MOST_FILES}"
        )
    _check_numbers(folder.path, names)
    shards = read_named(folder, names, problems)
    note_refused(folder.path, names, problems)
    return shards


def rename(shards: Shards, sizes: Sizes, problems: Problems) -> None:
    """Give the tensors, in place, the names and row ranges of Hugging Face's layout.

    Raises CheckpointError, with all `problems`, where they are not exactly those that the sizes
    imply.
    """
    stored = stored_tensors(sizes)
    expected = {
        name: ExpectedTensor(tensor.shape, BYTES if tensor.packed else FLOATS)
        for name, tensor in stored.items()
    }
    note_differences(shards.tensors, shards.files, expected, (), problems, _REASONS)
    problems.check(str(shards.folder.path))
    found, shards.tensors, shards.promised = shards.tensors, {}, set()
    for name, tensor in stored.items():
        info = found[name]
        for (part, rows), (offset, length) in zip(
            tensor.parts, tensor.ranges(info.offset, info.nbytes), strict=True
        ):
            shape = (rows, *info.shape[1:])
            shards.tensors[part] = TensorInfo(part, info.dtype, shape, info.file, offset, length)


def stored_tensors(sizes: Sizes) -> dict[str, Stored]:
    """Return what a checkpoint of these sizes holds, by name."""
    hidden, vocabulary = sizes.hidden, sizes.vocabulary
    tensors = {"embedding.weight": _whole("model.embed_tokens.weight", vocabulary, hidden)}
    for index in range(sizes.layers):
        for name, tensor in _layer(sizes).items():
            parts = tuple((f"model.layers.{index}.{part}", rows) for part, rows in tensor.parts)
            tensors[f"block.{index}.{name}"] = Stored(tensor.shape, tensor.packed, parts)
    tensors["norm.scale"] = _whole("model.norm.weight", hidden)
    tensors["unembedding.weight"] = _whole("lm_head.weight", vocabulary, hidden)
    return tensors


def _layer(sizes: Sizes) -> dict[str, Stored]:
    hidden, experts, width = sizes.hidden, sizes.experts, sizes.width
    rows = {"q": sizes.queries, "k": sizes.keys, "v": sizes.keys}
    total = sum(rows.values())
    weights, biases = (
        tuple((f"self_attn.{name}_proj.{kind}", count) for name, count in rows.items())
        for kind in ("weight", "bias")
    )
    return {
        "attn.norm.scale": _whole("input_layernorm.weight", hidden),
        "attn.qkv.weight": Stored((total, hidden), False, weights),
        "attn.qkv.bias": Stored((total,), False, biases),
        "attn.sinks": _whole("self_attn.sinks", sizes.heads),
        "attn.out.weight": _whole("self_attn.o_proj.weight", hidden, sizes.queries),
        "attn.out.bias": _whole("self_attn.o_proj.bias", hidden),
        "mlp.norm.scale": _whole("post_attention_layernorm.weight", hidden),
        "mlp.gate.weight": _whole("mlp.router.weight", experts, hidden),
        "mlp.gate.bias": _whole("mlp.router.bias", experts),
        **_experts("mlp1", "gate_up_proj", experts, 2 * width, hidden),
        **_experts("mlp2", "down_proj", experts, hidden, width),
    }


def _experts(name: str, part: str, count: int, rows: int, columns: int) -> dict[str, Stored]:
    """Return the tensors of one of the two matrices of all experts, (count, rows, columns)."""
    part, blocks = f"mlp.experts.{part}", columns // _BLOCK
    return {
        f"mlp.{name}_weight.blocks": _whole(
            f"{part}_blocks", count, rows, blocks, _BLOCK_BYTES, packed=True
        ),
        f"mlp.{name}_weight.scales": _whole(f"{part}_scales", count, rows, blocks, packed=True),
        f"mlp.{name}_bias": _whole(f"{part}_bias", count, rows),
    }


def _whole(name: str, *shape: int, packed: bool = False) -> Stored:
    return Stored(shape, packed, ((name, shape[0]),))


_REASONS = {"_weight": ": experts of this layout are MXFP4, in .blocks and .scales"}


def _check_numbers(folder: Path, names: list[str]) -> None:
    """Raise CheckpointError where files such as `model--00002-of-00007.safetensors` are missing."""
    series: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if found := _NUMBERED.fullmatch(name):
            series.setdefault((found[1], int(found[3])), set()).add(int(found[2]))
    for (stem, count), numbers in series.items():
        first = min(*numbers, 1)  # some count from 0
        missing = sorted(set(range(first, first + min(count, MOST_FILES))) - numbers)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise CheckpointError(
                f"{folder}: {stem}{missing[0]:05d}-of-{count:05d}{SUFFIX}{more}: no such file: the "
                "checkpoint is incomplete, download it again"
            )
