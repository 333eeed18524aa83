"""Which layout a checkpoint's folder has, and what its files say in Hugging Face's terms.

A new layout has a reader that returns a `Source`, and a line here.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptoss_onnx.checkpoint import openai_layout
from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import CONFIG, ORIGINAL, TOKENIZER
from gptoss_onnx.checkpoint.gguf.parts import gguf_of
from gptoss_onnx.checkpoint.names import unwrap
from gptoss_onnx.checkpoint.shards import Shards, read_shards
from gptoss_onnx.checkpoint.source import Source, hugging_face
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference.architectures.gpt_oss import GPT_OSS
from gptoss_onnx.reference.architectures.gpt_oss_original import (
    hugging_face_document,
    is_original,
    sizes_of,
)
from gptoss_onnx.reference.gguf.source import read_gguf_source
from gptoss_onnx.reference.respelled import respell

_EXAMPLE = "block.0.attn.qkv.weight"


def read_source(path: Path, problems: Problems) -> Source:
    """Return what the files of a checkpoint's folder, or a GGUF file, say; no weight byte is read.

    What is wrong with a file is noted in `problems`. Raises CheckpointError where the folder is no
    checkpoint, or is in another layout than Hugging Face's and its tensors are not those that its
    config.json implies.
    """
    if path.is_file():
        return read_gguf_source(path, problems)
    folder, where = CheckpointFolder(path), str(path / CONFIG)
    if not any(path.glob("*.safetensors*")) and (file := gguf_of(path)) is not None:
        return read_gguf_source(file, problems)
    document = None if folder.find(CONFIG) is None else folder.read_json(CONFIG)
    original = document is not None and is_original(document)
    shards = openai_layout.read_all(folder, problems) if original else read_shards(folder, problems)
    unwrap(shards, problems)
    respell(shards)
    names = shards.tensors.keys() | shards.promised
    if not names:
        problems.check(str(path))
    if openai_layout.is_named_so(names):
        return _openai(shards, document, where, problems)
    if original:
        raise CheckpointError(
            f"{where}: found the keys of OpenAI's own layout, but tensors named like "
            f"{min(names, default='nothing')}; expected tensors like {_EXAMPLE}"
        )
    return hugging_face(shards, document)


def _openai(
    shards: Shards, document: Mapping[str, Any] | None, where: str, problems: Problems
) -> Source:
    """Return the source of tensors in OpenAI's layout; the config.json beside them may be either
    one.
    """
    if document is not None and is_original(document):
        document = hugging_face_document(document, where)
    elif document is None or document.get("model_type") != GPT_OSS.model_type:
        raise CheckpointError(
            f"{where}: expected the config.json of OpenAI's own layout (experts_per_token, "
            f"initial_context_length and others), since tensors are named like {_EXAMPLE}: put it "
            "there"
        )
    openai_layout.rename(shards, sizes_of({**GPT_OSS.defaults, **document}, where), problems)
    return Source(shards, _beside(shards.folder), document, where, layout="openai")


def hugging_face_ranges(
    ranges: Mapping[str, tuple[int, int]], document: Mapping[str, Any], where: str
) -> dict[str, tuple[int, int]]:
    """Return where the tensors of Hugging Face's layout lie in a file whose names may be OpenAI's.

    Args:
        ranges: (offset, length) of each tensor of the file, by the name in its header.
        document: config.json in Hugging Face's keys; `where` names it in messages.
        where: see `document`.
    """
    if not openai_layout.is_named_so(ranges):
        return dict(ranges)
    found: dict[str, tuple[int, int]] = {}
    for name, tensor in openai_layout.stored_tensors(sizes_of(document, where)).items():
        if name in ranges:
            names = (part for part, _ in tensor.parts)
            found.update(zip(names, tensor.ranges(*ranges[name]), strict=True))
    return found


def _beside(folder: CheckpointFolder) -> CheckpointFolder:
    """Return the folder of the tokenizer: `original/` itself, or the one above."""
    path = Path(os.path.abspath(folder.path))  # noqa: PTH100 - links must not be followed
    above = path.name == ORIGINAL and folder.find(TOKENIZER) is None
    return CheckpointFolder(path.parent) if above else folder
