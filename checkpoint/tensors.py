"""Which tensors a gpt-oss checkpoint holds: names, shapes and dtypes of the layouts Hugging Face
publishes.

Legend: V vocabulary, X hidden width, H query heads, K kv heads, D head dim, E experts, I expert
    width.
`hf-mxfp4` packs two 4-bit values a byte, low nibble first, 32 values a scale: blocks uint8
(E, rows, columns/32, 16), scales uint8 (E, rows, columns/32). `hf-dense` (bf16 fine-tunes) stores
the same matrices transposed.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference.config import MXFP4_BLOCK, ModelConfig

Layout = Literal["hf-mxfp4", "hf-dense"]
FLOATS = ("BF16", "F16", "F32")
BYTES = ("U8",)
TORCH_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "U8": torch.uint8,
    "I8": torch.int8,  # in what `export --dense int8` writes, not in checkpoints
}


@dataclass(frozen=True)
class TensorInfo:
    """Where one stored tensor lies: `nbytes` bytes from `offset` (absolute) in the real file
    `file`.

    `dtype` is in safetensors' spelling: BF16, F16, F32 or U8.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype in PyTorch's terms."""
        return TORCH_DTYPES[self.dtype]

    def meta(self) -> Tensor:
        """Return an empty tensor of this shape and dtype on the meta device."""
        return torch.empty(self.shape, dtype=self.torch_dtype, device="meta")


@dataclass(frozen=True)
class ExpectedTensor:
    """The one shape and the safetensors dtypes that a tensor may have."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]


def refuse_openai_names(names: Collection[str], where: str) -> None:
    """Raise CheckpointError when the tensors are named as in OpenAI's original checkpoints."""
    if any(re.match(r"block\.\d+\.", name) for name in names):
        raise CheckpointError(
            f"{where}: found tensors named like block.0.attn.qkv.weight: the OpenAI original "
            "layout is not read yet, "
            "expected the Hugging Face layout (the folder above original/, with model.layers.0.* "
            "tensors)"
        )


def detect_layout(names: Collection[str]) -> Layout | None:
    """Return the layout that the tensor names belong to, None when they name no experts."""
    if any(name.endswith(".mlp.experts.gate_up_proj_blocks") for name in names):
        return "hf-mxfp4"
    if any(name.endswith(".mlp.experts.gate_up_proj") for name in names):
        return "hf-dense"
    return None


def expected_tensors(config: ModelConfig, layout: Layout) -> dict[str, ExpectedTensor]:
    """Return every tensor of the layout by its name, in the order of the computation.

    Raises CheckpointError when MXFP4 cannot hold them: its blocks of 32 run along hidden and expert
    width.
    """
    if layout == "hf-mxfp4":
        for key, size in (
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
        ):
            if size % MXFP4_BLOCK:
                raise CheckpointError(
                    f"{key}: found {size}, MXFP4 expects a multiple of {MXFP4_BLOCK}"
                )
    embedding = ExpectedTensor((config.vocab_size, config.hidden_size), FLOATS)
    tensors = {"model.embed_tokens.weight": embedding}
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}."
        tensors |= {prefix + name: tensor for name, tensor in _layer(config, layout)}
    tensors["model.norm.weight"] = ExpectedTensor((config.hidden_size,), FLOATS)
    if not config.tie_word_embeddings:
        tensors["lm_head.weight"] = embedding
    return tensors


def compare(
    found: Mapping[str, TensorInfo],
    files: Mapping[Path, str],
    expected: Mapping[str, ExpectedTensor],
    reported: Collection[str],
    problems: Problems,
) -> None:
    """Note every missing, unexpected or unlike tensor; `files` gives the names to use for them.

    The absence of names in `reported` is noted already.
    """
    for name, want in expected.items():
        have = found.get(name)
        if have is None:
            if name not in reported:
                problems.add(f"{name}: missing, expected {want.shape} {' or '.join(want.dtypes)}")
            continue
        if have.shape != want.shape:
            problems.add(
                f"{name}: found shape {have.shape} in {files[have.file]}, expected {want.shape}"
            )
        if have.dtype not in want.dtypes:
            problems.add(
                f"{name}: found dtype {have.dtype} in {files[have.file]}, expected "
                f"{' or '.join(want.dtypes)}"
            )
    for name in sorted(found.keys() - expected.keys()):
        problems.add(
            f"{name}: unexpected, found in {files[found[name].file]}{_why_unexpected(name)}"
        )


def _why_unexpected(name: str) -> str:
    if name == "lm_head.weight":
        return " although config.json says tie_word_embeddings"
    if name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias")):
        return " although config.json says attention_bias: false"
    return ""


def _layer(config: ModelConfig, layout: Layout) -> Iterator[tuple[str, ExpectedTensor]]:
    hidden, experts = config.hidden_size, config.num_experts
    width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    yield "input_layernorm.weight", ExpectedTensor((hidden,), FLOATS)
    for name, rows, columns in (
        ("q_proj", width, hidden),
        ("k_proj", kv_width, hidden),
        ("v_proj", kv_width, hidden),
        ("o_proj", hidden, width),
    ):
        yield f"self_attn.{name}.weight", ExpectedTensor((rows, columns), FLOATS)
        if config.attention_bias:
            yield f"self_attn.{name}.bias", ExpectedTensor((rows,), FLOATS)
    yield "self_attn.sinks", ExpectedTensor((config.num_heads,), FLOATS)
    yield "post_attention_layernorm.weight", ExpectedTensor((hidden,), FLOATS)
    yield "mlp.router.weight", ExpectedTensor((experts, hidden), FLOATS)
    yield "mlp.router.bias", ExpectedTensor((experts,), FLOATS)
    for name, rows, columns in (
        ("gate_up_proj", 2 * config.intermediate_size, hidden),
        ("down_proj", hidden, config.intermediate_size),
    ):
        if layout == "hf-mxfp4":
            blocks = (experts, rows, columns // MXFP4_BLOCK)
            yield f"mlp.experts.{name}_blocks", ExpectedTensor((*blocks, MXFP4_BLOCK // 2), BYTES)
            yield f"mlp.experts.{name}_scales", ExpectedTensor(blocks, BYTES)
        else:
            yield f"mlp.experts.{name}", ExpectedTensor((experts, columns, rows), FLOATS)
        yield f"mlp.experts.{name}_bias", ExpectedTensor((experts, rows), FLOATS)


def element_count(shape: tuple[int, ...]) -> int:
    """Number of elements of a shape; 1 for a scalar."""
    return math.prod(shape)
