"""Open a checkpoint where it lies: which architecture it is, its configuration, its parameters."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from gptoss_onnx.checkpoint.adapter import read_adapter
from gptoss_onnx.checkpoint.fields import Fields, Problems
from gptoss_onnx.checkpoint.locate import locate
from gptoss_onnx.checkpoint.open import StoredCheckpoint
from gptoss_onnx.checkpoint.source import Source
from gptoss_onnx.checkpoint.tensors import Parameter, TensorInfo, note_differences
from gptoss_onnx.choices import AdapterMode
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.reference.adapters.adapt import adapt
from gptoss_onnx.reference.adapters.base import Base
from gptoss_onnx.reference.architecture import Architecture, StoredNames
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.config import DecoderConfig
from gptoss_onnx.reference.parameters import ParameterPlan
from gptoss_onnx.reference.quantization import read_fp8_block, refuse_quantization
from gptoss_onnx.reference.quantized_tensors import refuse_quantized_tensors
from gptoss_onnx.reference.sources import read_source

Checkpoint: TypeAlias = StoredCheckpoint[DecoderConfig]


def open_checkpoint(
    source: str | os.PathLike[str],
    cache_dir: Path | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    adapters: Sequence[str | os.PathLike[str]] = (),
    adapter_mode: AdapterMode = "merge",
) -> Checkpoint:
    """Open a checkpoint folder, a Hugging Face cache snapshot, a hub id of the local cache, or a
    GGUF file.

    Reads `config.json` and the headers of the files, no weights. The folder may be in Hugging
    Face's layout or in OpenAI's, or hold one GGUF checkpoint.

    Args:
        source: a folder, a hub id such as `openai/gpt-oss-20b`, or a GGUF file of gpt-oss, of which
            all parts are read.
        cache_dir: where hub ids are looked up; the user's Hugging Face cache when None.
        tokenizer: a folder or a tokenizer.json, in place of the checkpoint's own tokenizer.
        adapters: folders of PEFT adapters (LoRA) that are added to the weights, in this order.
        adapter_mode: `merge`, or `runtime`: the one adapter stays beside the weights.

    Raises:
        InputError: there is no such tokenizer, or adapters are named with a GGUF file.
        CheckpointError: the checkpoint is not there, of an unknown model type, in a layout that is
            not read, or its files do not hold exactly the tensors that `config.json` implies; or an
            adapter is not one, or is of another model. One message lists every problem.
    """
    problems = Problems()
    found = read_source(locate(source, cache_dir=cache_dir), problems)
    if adapters and found.layout == "gguf":
        raise InputError(
            f"{found.path}: found a GGUF file and --adapter, expected a checkpoint in safetensors, "
            "which adapters are added to: leave --adapter out, or name the model's own checkpoint"
        )
    shards, where = found.shards, str(found.path)
    stored = shards.tensors | _stand_ins(found.computed)
    refuse_quantization(found.document, found.where)
    promised = stored.keys() | shards.promised
    refuse_quantized_tensors(promised, shards.tensors, found.document, where)
    _refuse_code(found.document, found.where)
    names = StoredNames(promised)
    architecture, fields, config, notes = _read_stored(found, names, stored)
    fp8_block = read_fp8_block(fields)
    fields.problems.check(found.where)
    for name in [name for name in stored if architecture.is_ignored(name)]:
        del stored[name]
    plan = ParameterPlan(architecture, config, names, fp8_block)
    reasons = _reasons(fields.read)
    note_differences(
        stored, shards.files, plan.expected, shards.promised, problems, reasons, found.called
    )
    for line in plan.unlike(stored):
        problems.add(line)
    problems.check(where)
    parameters = plan.parameters(stored, found.computed)
    shards.tensors = {
        tensor.name: tensor for parameter in parameters.values() for tensor in parameter.stored
    }
    named = None if tokenizer is None else Path(tokenizer)
    if not adapters:
        return StoredCheckpoint(found, config, fields.read, parameters, notes, named)
    files = [read_adapter(adapter) for adapter in adapters]
    adapted = adapt(Base(architecture, config, names, parameters), files, adapter_mode)
    return StoredCheckpoint(
        found,
        adapted.config,
        fields.read,
        adapted.parameters,
        notes,
        named,
        base_config=config,
        adapters=files,
        products=adapted.products,
    )


def _read_stored(
    found: Source, names: StoredNames, stored: Mapping[str, TensorInfo]
) -> tuple[Architecture, Fields, DecoderConfig, tuple[str, ...]]:
    """Return what `read_config` does, with as many tokens as the stored embedding has, and what a
    user should know of that.
    """
    architecture, fields, config = read_config(found.document, names, found.where)
    rows = _embedding_rows(architecture, config, names, stored)
    if rows == config.vocab_size:
        return architecture, fields, config, ()
    note = (
        f"{found.where}: vocab_size: found {config.vocab_size}, but the stored embedding has "
        f"{rows} rows: {rows} is taken"
    )
    return *read_config({**found.document, "vocab_size": rows}, names, found.where), (note,)


def _stand_ins(computed: Mapping[str, Parameter]) -> dict[str, TensorInfo]:
    """Return what is computed as if it were stored, to be compared with what is expected."""
    return {
        name: TensorInfo(name, entry.dtype, entry.shape, entry.stored[0].file, 0, 0)
        for name, entry in computed.items()
    }


def read_config(
    document: Mapping[str, Any], names: StoredNames, where: str
) -> tuple[Architecture, Fields, DecoderConfig]:
    """Return the architecture of a `config.json`, its fields as read, and the configuration.

    `names` are those of the stored tensors. `where` names the document in the message. Raises
    CheckpointError with every missing key, wrong type and unsupported value at once.
    """
    problems = Problems()
    model_type = Fields(document, problems).one_of(
        "model_type", tuple(ARCHITECTURES), ": the architectures that are read"
    )
    problems.check(where)
    architecture = ARCHITECTURES[model_type]
    fields = Fields({**architecture.defaults, **document}, problems)
    fields.value("model_type")  # among those that were read
    config = architecture.read(fields, names)
    if config.tied and names.has("lm_head.weight"):
        config = replace(config, tied=False)  # what is stored counts, as for transformers 5
    problems.check(where)
    return architecture, fields, config


def _embedding_rows(
    architecture: Architecture,
    config: DecoderConfig,
    names: StoredNames,
    tensors: Mapping[str, TensorInfo],
) -> int:
    """Return how many tokens the stored embedding knows, which counts where config.json says
    another number: trainers pad and extend vocabularies. All tensors of them have to agree.
    """
    stored = (
        tensors.get(architecture.stored_name(name, names))
        for name in ("model.embed_tokens.weight", "lm_head.weight")
    )
    sizes = {info.shape[0] for info in stored if info and info.shape[1:] == (config.hidden_size,)}
    return sizes.pop() if len(sizes) == 1 else config.vocab_size


def _reasons(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return why a tensor is not expected, by the end of its name.

    Whatever the architecture calls the keys, those that end in "bias" switch biases off.
    """
    keys = [key for key, value in settings.items() if key.endswith("bias") and value is False]
    said = ", ".join(f"{key}: false" for key in keys)
    return {".bias": f" although config.json says {said}"} if keys else {}


def _refuse_code(document: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint that brings code of its own."""
    if document.get("auto_map") is not None:
        raise CheckpointError(
            f"{where}: found auto_map, which names Python code of the checkpoint's own: it is "
            "never run; take the key out if the model is one of those that are read"
        )
