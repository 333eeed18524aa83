"""What the files of a made checkpoint hold, in each layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from gptoss_onnx.checkpoint.folder_kinds import CONFIG, INDEX
from gptoss_onnx.checkpoint.openai_layout import stored_tensors
from gptoss_onnx.checkpoint.writer import PlannedTensor, index_document, plan_files
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.architectures.gpt_oss import GPT_OSS
from gptoss_onnx.reference.architectures.gpt_oss_original import (
    hugging_face_document,
    original_document,
    sizes_of,
)
from gptoss_onnx.reference.checkpoint import read_config

SyntheticLayout = Literal["hf-mxfp4", "hf-bf16", "openai"]
Document = Mapping[str, Any]
NO_NAMES = StoredNames([])  # nothing is stored yet, so config.json alone says how
_TYPES = {"blocks": "FP4", "scales": "UE8"}  # as the published dtypes.json calls them


@dataclass(frozen=True)
class Laid:
    """The files of a checkpoint.

    Attributes:
        documents: its JSON files, by name.
        files: the tensors of each of its other files, by name.
        parts: the tensors of Hugging Face's layout whose bytes each tensor is, by its name.
    """

    documents: Mapping[str, Document]
    files: Mapping[str, list[PlannedTensor]]
    parts: Mapping[str, Sequence[PlannedTensor]]


def lay_out(
    document: Document, tensors: Sequence[PlannedTensor], shard_bytes: int, *, openai: bool
) -> Laid:
    """Return the files of a checkpoint in Hugging Face's layout, or in OpenAI's.

    Args:
        document: its config.json in Hugging Face's keys.
        tensors: what Hugging Face's layout stores.
        shard_bytes: largest file.
        openai: OpenAI's layout; raises InputError where that cannot say what the document says.
    """
    if openai:
        return _openai(document, tensors, shard_bytes)
    files = plan_files(tensors, shard_bytes)
    index = {INDEX: index_document(files)} if len(files) > 1 else {}
    return Laid({CONFIG: document, **index}, files, {tensor.name: (tensor,) for tensor in tensors})


def _openai(document: Document, tensors: Sequence[PlannedTensor], shard_bytes: int) -> Laid:
    config = _openai_config(document)
    theirs = {tensor.name: tensor for tensor in tensors}
    parts, planned = {}, []
    for name, stored in stored_tensors(sizes_of(document, CONFIG)).items():
        parts[name] = [theirs[part] for part, _ in stored.parts]
        planned.append(replace(parts[name][0], name=name, shape=stored.shape))
    files = plan_files(planned, shard_bytes)
    if len(files) > 1:  # counted from 1, with two dashes, as the published ones are
        files = {
            f"model--{number:05d}-of-{len(files):05d}.safetensors": members
            for number, members in enumerate(files.values(), 1)
        }
    types = {
        tensor.name: _TYPES.get(tensor.name.rpartition(".")[2], tensor.dtype) for tensor in planned
    }
    return Laid({CONFIG: config, "dtypes.json": types}, files, parts)


def _openai_config(document: Document) -> Document:
    if document["model_type"] == GPT_OSS.model_type:
        config = original_document(document)
        try:
            again = hugging_face_document(config, CONFIG)
        except CheckpointError as error:
            raise InputError(f"layout: openai cannot say this {error}") from error
        if _config(again) == _config(document):
            return config
    raise InputError(
        "layout: found openai, expected hf-mxfp4 or hf-bf16: that layout has gpt-oss with MXFP4 "
        "experts alone, with biases, an lm_head of its own and every other layer with a window"
    )


def _config(document: Document) -> object:
    return read_config(document, NO_NAMES, CONFIG)[2]
