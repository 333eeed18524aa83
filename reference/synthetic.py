"""Make checkpoints of any shape: small random ones, published shapes as holes or random numbers.

They are complete Hugging Face checkpoints without a tokenizer: `config.json` in the published
spelling and safetensors files, sharded like the published ones where they are as large.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from gptoss_onnx.checkpoint.folder_kinds import INDEX
from gptoss_onnx.checkpoint.tensors import BYTES, FLOATS
from gptoss_onnx.checkpoint.writer import (
    PlannedTensor,
    index_document,
    plan_files,
    write_safetensors,
)
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.architectures import ARCHITECTURES, DEFAULT, PRESETS
from gptoss_onnx.reference.checkpoint import read_config
from gptoss_onnx.reference.config import DecoderConfig
from gptoss_onnx.reference.parameters import ParameterPlan
from gptoss_onnx.reference.random_weights import distribution_of, random_weights

SyntheticLayout = Literal["hf-mxfp4", "hf-bf16"]
Document = Mapping[str, Any]
SHARD_BYTES = 4_800_000_000  # what the published shards hold


def make_checkpoint(
    out: Path,
    document: Document,
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
        document: its `config.json`; see `tiny_document` and `preset_document`.
        layout: `hf-mxfp4`, experts packed where the document says so, or `hf-bf16`, all dense.
        seed: of the random values; each tensor's also depend on its name.
        sparse: leave holes instead of values: all weights are zero, the disk holds headers only.
        dtype: of every tensor that is not packed: BF16 as published, F16 or F32.
        shard_bytes: largest file; anything that fits in one is a single `model.safetensors`.
        progress: hears how many bytes are written.

    Raises:
        InputError: `out` is in the way, the disk is too small, or an option has an unknown value.
        CheckpointError: the document contradicts itself, or MXFP4 cannot hold its sizes.
    """
    document = _in_layout(document, layout)
    config, plan = _plan(document)
    tensors = _tensors(plan, dtype)
    files = plan_files(tensors, shard_bytes)
    total = sum(tensor.nbytes for tensor in tensors)
    created = _prepare(out, 0 if sparse else total)
    if progress is not None:
        progress.begin("writing random weights", total)

    def content(tensor: PlannedTensor) -> Iterable[bytes]:
        distribution = distribution_of(plan.owners[tensor.name], tensor.shape, config)
        for piece in random_weights(tensor, distribution, seed):
            yield piece
            if progress is not None:
                progress.advance(len(piece))

    finished = False
    try:
        _write_json(out / "config.json", document)
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


def tiny_document(model_type: str = DEFAULT, **changes: Any) -> dict[str, Any]:
    """Return the config.json of a small model that has every feature of its architecture.

    Any key can be changed. Raises InputError for a key that the architecture does not read, and for
    values that contradict each other.
    """
    document = dict(ARCHITECTURES[model_type].tiny) | changes
    try:
        _, fields, _ = read_config(document, _names_of(document), "tiny configuration")
    except CheckpointError as error:
        raise InputError(str(error)) from error
    unknown = sorted(changes.keys() - fields.read.keys())
    if unknown:
        known = ", ".join(sorted(fields.read))
        raise InputError(f"{', '.join(unknown)}: no such key, expected some of {known}")
    return document


def tiny_config(model_type: str = DEFAULT, **changes: Any) -> DecoderConfig:
    """Return the configuration that `tiny_document` describes."""
    return config_of(tiny_document(model_type, **changes))


def preset_document(name: str, layers: int | None = None) -> dict[str, Any]:
    """Return the config.json of a published shape, cut to its first `layers` where given."""
    if name not in PRESETS:
        raise InputError(f"{name}: no such model, expected one of {', '.join(PRESETS)}")
    document = dict(PRESETS[name])
    if layers is not None:
        key = next(key for key in ("num_hidden_layers", "n_layer") if key in document)
        if not 1 <= layers <= document[key]:
            raise InputError(f"layers: found {layers}, {name} has 1 to {document[key]}")
        document[key] = layers
    return document


def config_of(document: Document) -> DecoderConfig:
    """Return the configuration that a config.json describes; raises CheckpointError."""
    return read_config(document, _names_of(document), "config.json")[2]


def _names_of(document: Document) -> StoredNames:
    """Return the names that tell how a checkpoint of this config.json stores its experts."""
    packed = document.get("quantization_config") is not None
    stem = "model.layers.0.mlp.experts.gate_up_proj"
    return StoredNames([f"{stem}_blocks" if packed else stem])


def _in_layout(document: Document, layout: str) -> dict[str, Any]:
    """Return a config.json that says how its experts are stored."""
    if layout not in ("hf-mxfp4", "hf-bf16"):
        raise InputError(f"layout: found {layout!r}, expected one of hf-mxfp4, hf-bf16")
    dropped = () if layout == "hf-mxfp4" else ("quantization_config",)
    return {key: value for key, value in document.items() if key not in dropped}


def _plan(document: Document) -> tuple[DecoderConfig, ParameterPlan]:
    names = _names_of(document)
    architecture, _, config = read_config(document, names, "config.json")
    # Names in full, as transformers writes them.
    named = StoredNames([architecture.prefix])
    return config, ParameterPlan(architecture, config, named)


def _tensors(plan: ParameterPlan, dtype: str) -> list[PlannedTensor]:
    if dtype not in FLOATS:
        raise InputError(f"dtype: found {dtype!r}, expected one of {', '.join(FLOATS)}")
    return [
        PlannedTensor(name, "U8" if tensor.dtypes == BYTES else dtype, tensor.shape)
        for name, tensor in plan.expected.items()
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


def _write_json(path: Path, document: Document) -> None:
    path.write_text(
        json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
    )
