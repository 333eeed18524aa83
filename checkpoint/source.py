"""Source: a checkpoint as one layout's reader found it, in the terms of Hugging Face's layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import CONFIG
from gptoss_onnx.checkpoint.shards import Shards


@dataclass(frozen=True)
class Source:
    """What the files of a checkpoint say; no weight byte is read.

    Attributes:
        shards: the stored tensors, under the names that Hugging Face's layout has for them.
        beside: the folder of the side files: tokenizer, chat template, generation settings.
        document: what config.json says, or what other files say, in its keys.
        where: the file that the document is from, for messages.
        layout: how manifests name it, before the form of the experts.
    """

    shards: Shards
    beside: CheckpointFolder
    document: Mapping[str, Any]
    where: str
    layout: str = "hf"


def hugging_face(shards: Shards) -> Source:
    """Return the source that a folder of Hugging Face's layout is.

    Raises CheckpointError where config.json is missing or is not an object.
    """
    folder = shards.folder
    return Source(shards, folder, folder.read_json(CONFIG), str(folder.path / CONFIG))
