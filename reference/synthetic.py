"""Make checkpoints of any shape: small random ones, published shapes as holes or random numbers.

They are complete checkpoints without a tokenizer: `config.json` in the published spelling and
safetensors files, sharded like the published ones where they are as large.
"""

import copy
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from gptoss_onnx.checkpoint.tensors import BYTES, FLOATS
from gptoss_onnx.checkpoint.writer import PlannedTensor, write_safetensors
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.architectures import (
    ALIASES,
    ARCHITECTURES,
    DEFAULT,
    PRESETS,
    TINY,
)
from gptoss_onnx.reference.checkpoint import read_config
from gptoss_onnx.reference.config import DecoderConfig
from gptoss_onnx.reference.parameters import ParameterPlan
from gptoss_onnx.reference.random_weights import distribution_of, random_weights
from gptoss_onnx.reference.synthetic_layouts import (
    NO_NAMES,
    Document,
    SyntheticLayout,
    lay_out,
)

LAYERS_KEYS = ("num_hidden_layers", "n_layer")  # under which a config.json counts its layers
INDICES_KEYS = ("moe_layers", "mlp_only_layers")  # whose values are lists of layers
QUANTIZATION = "quantization_config"
SHARD_BYTES = 4_800_000_000  # what the published shards hold


def make_checkpoint(
    out: Path,
    document: Document,
    *,
    layout: SyntheticLayout | None = None,
    seed: int = 0,
    sparse: bool = False,
    dtype: str = "BF16",
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> DecoderConfig:
    """Write a checkpoint into the folder `out`, which must not exist or be empty.

    Returns its configuration.

    Args:
        out: folder to create; what was written is removed again on any failure.
        document: its `config.json`; see `tiny_document` and `preset_document`.
        layout: `hf-bf16` stores every tensor as it is computed with, `hf-mxfp4` packs the experts
            as the document must say; `openai` packs them in OpenAI's own layout, with the same
            bytes; None: as the document says.
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
    laid = lay_out(document, tensors, shard_bytes, openai=layout == "openai")
    total = sum(tensor.nbytes for tensor in tensors)
    created = _prepare(out, 0 if sparse else total)
    if progress is not None:
        progress.begin("writing random weights", total)

    def content(tensor: PlannedTensor) -> Iterable[bytes]:
        for part in laid.parts[tensor.name]:
            distribution = distribution_of(plan.owners[part.name], part.shape, config)
            for piece in random_weights(part, distribution, seed):
                yield piece
                if progress is not None:
                    progress.advance(len(piece))

    finished = False
    try:
        for name, content_of in laid.documents.items():
            _write_json(out / name, content_of)
        for name, members in laid.files.items():
            write_safetensors(out / name, members, None if sparse else content)
        finished = True
    finally:
        if not finished:
            for name in (*laid.documents, *laid.files):
                (out / name).unlink(missing_ok=True)
            if created:
                out.rmdir()
    return config


def tiny_document(
    model_type: str = DEFAULT, layers: int | None = None, **changes: Any
) -> dict[str, Any]:
    """Return the config.json of a small model that has every feature of its architecture.

    `layers` changes how many there are, `changes` any key; None takes a key out. Raises InputError
    for a key that the architecture does not read, and for values that contradict each other.
    """
    tiny = ARCHITECTURES[model_type].tiny
    changed = {**tiny, **_with_layers(tiny, layers), **changes}
    document = copy.deepcopy({key: it for key, it in changed.items() if it is not None})
    try:
        _, fields, _ = read_config(document, NO_NAMES, "tiny configuration")
    except CheckpointError as error:
        raise InputError(str(error)) from error
    unknown = sorted((changes.keys() & document.keys()) - set(fields.asked))
    if unknown:
        known = ", ".join(fields.asked)
        raise InputError(f"{', '.join(unknown)}: no such key, expected some of {known}")
    return document


def tiny_config(model_type: str = DEFAULT, **changes: Any) -> DecoderConfig:
    """Return the configuration that `tiny_document` describes."""
    return config_of(tiny_document(model_type, **changes))


def preset_document(name: str, layers: int | None = None) -> dict[str, Any]:
    """Return the config.json of a published shape, cut to its first `layers` where given.

    Raises InputError for a name that is neither a preset nor an alias of one, and for more layers
    than it has.
    """
    full_name = ALIASES.get(name, name)
    if full_name not in PRESETS:
        known = ", ".join([*PRESETS, *ALIASES])
        raise InputError(f"{name}: no such model, expected one of {known}")
    document = PRESETS[full_name]
    count = document[_layers_key(document)]
    if layers is not None and not 1 <= layers <= count:
        raise InputError(f"layers: found {layers}, {full_name} has 1 to {count}")
    return copy.deepcopy({**document, **_with_layers(document, layers)})


def tiny_type(name: str) -> str | None:
    """Return the model type whose small model a name means (`tiny`, `tiny-gpt-oss`).

    None for the name of a preset. Raises InputError for a name that is neither.
    """
    model_type = TINY.get(name.replace("_", "-"))
    if model_type is None and name not in PRESETS and name not in ALIASES:
        known = ", ".join([*TINY, *PRESETS, *ALIASES])
        raise InputError(f"{name}: no such model, expected one of {known}")
    return model_type


def _with_layers(document: Document, layers: int | None) -> dict[str, Any]:
    """Return what changes in a config.json that gets the first `layers` of its layers."""
    if layers is None:
        return {}
    changed: dict[str, Any] = {_layers_key(document): layers}
    if document.get("layer_types"):
        changed["layer_types"] = document["layer_types"][:layers]
    for key in INDICES_KEYS:
        if document.get(key):
            changed[key] = [index for index in document[key] if index < layers]
    return changed


def _layers_key(document: Document) -> str:
    return next(key for key in LAYERS_KEYS if key in document)


def config_of(document: Document) -> DecoderConfig:
    """Return the configuration that a config.json describes; raises CheckpointError."""
    return read_config(document, NO_NAMES, "config.json")[2]


def _in_layout(document: Document, layout: str | None) -> Document:
    """Return a config.json that says how its experts are stored."""
    known = get_args(SyntheticLayout)
    if layout not in (None, *known):
        raise InputError(f"layout: found {layout!r}, expected one of {', '.join(known)}")
    if layout in ("hf-mxfp4", "openai") and QUANTIZATION not in document:
        raise InputError(
            f"layout: found {layout}, expected hf-bf16: config.json has no {QUANTIZATION}"
        )
    dropped = QUANTIZATION if layout == "hf-bf16" else None
    return {key: value for key, value in document.items() if key != dropped}


def _plan(document: Document) -> tuple[DecoderConfig, ParameterPlan]:
    architecture, _, config = read_config(document, NO_NAMES, "config.json")
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
