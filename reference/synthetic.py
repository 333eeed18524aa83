"""Make checkpoints of any gpt-oss shape: small random ones, real shapes as holes or random numbers.

They are complete Hugging Face checkpoints without a tokenizer: `config.json` in the published
spelling and safetensors files, sharded like the published ones where they are as large.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from gptoss_onnx.checkpoint.folder_kinds import INDEX
from gptoss_onnx.checkpoint.tensors import BYTES, FLOATS, Layout, expected_tensors
from gptoss_onnx.checkpoint.writer import (
    PlannedTensor,
    index_document,
    plan_files,
    write_safetensors,
)
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.config import (
    FULL,
    SLIDING,
    SWIGLU_ALPHA,
    SWIGLU_LIMIT,
    ModelConfig,
    RopeConfig,
)
from gptoss_onnx.reference.random_weights import random_weights

SyntheticLayout = Literal["hf-mxfp4", "hf-bf16"]
RealName = Literal["20b", "120b"]
SHARD_BYTES = 4_800_000_000  # what the published shards hold
# As in the published config.json; token ids are those of the o200k_harmony tokenizer.
_TOKENS = {"eos_token_id": 200002, "pad_token_id": 199999}
_PUBLISHED = {
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.9,
    "use_cache": True,
}
_QUANTIZATION = {
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
    "quant_method": "mxfp4",
}


def make_checkpoint(
    out: Path,
    config: ModelConfig,
    *,
    layout: SyntheticLayout = "hf-mxfp4",
    seed: int = 0,
    sparse: bool = False,
    dtype: str = "BF16",
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint into the folder `out`, which must not exist or be empty.

    Args:
        out: folder to create; what was written is removed again on any failure.
        config: the architecture; see `tiny_config` and `real_config`.
        layout: `hf-mxfp4` (packed experts) or `hf-bf16` (dense experts).
        seed: of the random values; each tensor's also depend on its name.
        sparse: leave holes instead of values: every weight is zero, and the disk holds only
            headers.
        dtype: of every tensor that is not packed: BF16 as published, F16 or F32.
        shard_bytes: largest file; anything that fits in one is a single `model.safetensors`.
        progress: hears how many bytes are written.

    Raises:
        InputError: `out` is in the way, the disk is too small, or an option has an unknown value.
        CheckpointError: MXFP4 cannot hold the configuration's sizes.
    """
    tensors = _plan(config, layout, dtype)
    files = plan_files(tensors, shard_bytes)
    total = sum(tensor.nbytes for tensor in tensors)
    created = _prepare(out, 0 if sparse else total)
    if progress is not None:
        progress.begin("writing random weights", total)

    def content(tensor: PlannedTensor) -> Iterable[bytes]:
        for piece in random_weights(tensor, seed):
            yield piece
            if progress is not None:
                progress.advance(len(piece))

    finished = False
    try:
        _write_json(out / "config.json", config_document(config, layout))
        for name, members in files.items():
            write_safetensors(out / name, members, None if sparse else content)
        if len(files) > 1:
            _write_json(out / INDEX, index_document(files))
        finished = True
    finally:
        if not finished:
            for name in ("config.json", *files, INDEX):
                (out / name).unlink(missing_ok=True)
            if created:
                out.rmdir()


def tiny_config(**overrides: Any) -> ModelConfig:
    """Return a small configuration that has every feature of gpt-oss; any field can be replaced.

    Without `layer_types` the layers alternate, sliding first. Raises InputError for an unknown
    field or for values that contradict each other.
    """
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    unknown = sorted(overrides.keys() - known)
    if unknown:
        raise InputError(
            f"{', '.join(unknown)}: no such field, expected some of {', '.join(sorted(known))}"
        )
    num_layers = overrides.get("num_layers", _TINY.num_layers)
    layer_types = _alternating(num_layers) if isinstance(num_layers, int) else ()
    config = dataclasses.replace(_TINY, **{"layer_types": layer_types, **overrides})
    try:
        return ModelConfig.from_json(config.to_json(), "tiny configuration")
    except CheckpointError as error:
        raise InputError(str(error)) from error


def real_config(name: RealName, layers: int | None = None) -> ModelConfig:
    """Return the configuration of gpt-oss-20b or gpt-oss-120b, cut to the first `layers` where
    given.
    """
    if name not in _REAL:
        raise InputError(f"{name}: no such model, expected one of {', '.join(_REAL)}")
    real_layers, num_experts = _REAL[name]
    num_layers = real_layers if layers is None else layers
    if not 1 <= num_layers <= real_layers:
        raise InputError(f"layers: found {layers}, gpt-oss-{name} has 1 to {real_layers}")
    return ModelConfig(
        num_layers=num_layers,
        hidden_size=2880,
        intermediate_size=2880,
        vocab_size=201088,
        num_heads=64,
        num_kv_heads=8,
        head_dim=64,
        num_experts=num_experts,
        top_k=4,
        window=128,
        layer_types=_alternating(num_layers),
        rms_norm_eps=1e-5,
        swiglu_alpha=SWIGLU_ALPHA,
        swiglu_limit=SWIGLU_LIMIT,
        attention_bias=True,
        tie_word_embeddings=False,
        max_position_embeddings=131072,
        rope=RopeConfig(150000.0, "yarn", 32.0, 32.0, 1.0, 4096, False, None),
    )


def config_document(config: ModelConfig, layout: SyntheticLayout) -> dict[str, Any]:
    """Return `config.json` as published: alpha is left out where it is the usual constant."""
    document = config.to_json() | _PUBLISHED
    if config.swiglu_alpha == SWIGLU_ALPHA:
        del document["swiglu_alpha"]
    if config.vocab_size > max(_TOKENS.values()):
        document |= _TOKENS
    if layout == "hf-mxfp4":
        document["quantization_config"] = _QUANTIZATION
    return document


def _alternating(num_layers: int) -> tuple[str, ...]:
    return tuple(FULL if layer % 2 else SLIDING for layer in range(num_layers))


_REAL = {"20b": (24, 32), "120b": (36, 128)}  # layers, experts
# No two sizes are alike, so that a transposed or swapped axis cannot go unnoticed.
_TINY = ModelConfig(
    num_layers=4,
    hidden_size=64,
    intermediate_size=96,
    vocab_size=320,
    num_heads=8,
    num_kv_heads=2,
    head_dim=16,
    num_experts=6,
    top_k=3,
    window=8,
    layer_types=_alternating(4),
    rms_norm_eps=1e-5,
    swiglu_alpha=SWIGLU_ALPHA,
    swiglu_limit=SWIGLU_LIMIT,
    attention_bias=True,
    tie_word_embeddings=False,
    max_position_embeddings=2048,
    rope=RopeConfig(150000.0, "yarn", 32.0, 32.0, 1.0, 64, False, None),
)


def _plan(config: ModelConfig, layout: SyntheticLayout, dtype: str) -> list[PlannedTensor]:
    layouts: dict[str, Layout] = {"hf-mxfp4": "hf-mxfp4", "hf-bf16": "hf-dense"}
    if layout not in layouts:
        raise InputError(f"layout: found {layout!r}, expected one of {', '.join(layouts)}")
    if dtype not in FLOATS:
        raise InputError(f"dtype: found {dtype!r}, expected one of {', '.join(FLOATS)}")
    return [
        PlannedTensor(name, "U8" if tensor.dtypes == BYTES else dtype, tensor.shape)
        for name, tensor in expected_tensors(config, layouts[layout]).items()
    ]


def _prepare(out: Path, needed: int) -> bool:
    """Create `out` where it is missing (True), after checking that it is free and the disk large
    enough.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        kind = "a folder with content" if out.is_dir() else "a file"
        raise InputError(
            f"{out}: found {kind}, expected a new or empty folder; remove it or choose another"
        )
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise InputError(
            f"{out}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; choose another "
            "disk or --sparse"
        )
    created = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    return created


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(
        json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
    )
