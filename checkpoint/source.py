"""Source: a checkpoint as one layout's reader found it, in the terms of Hugging Face's layout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.folder_kinds import CONFIG
from gptoss_onnx.checkpoint.shards import Shards
from gptoss_onnx.checkpoint.tensors import Parameter


@dataclass(frozen=True)
class Source:
    """What the files of a checkpoint say; no weight byte is read.

    Attributes:
        shards: the stored tensors, under the names that Hugging Face's layout has for them.
        beside: the folder of the side files: tokenizer, chat template, generation settings.
        document: what config.json says, or what other files say, in its keys.
        where: the file that the document is from, for messages.
        layout: how manifests name it, before the form of the experts.
        file: the checkpoint, if it is a file and no folder.
        computed: by Hugging Face's name of a tensor, the parameter that is computed in its place.
        called: Hugging Face's name of a tensor → what the files call it.
    """

    shards: Shards
    beside: CheckpointFolder
    document: Mapping[str, Any]
    where: str
    layout: str = "hf"
    file: Path | None = None
    computed: Mapping[str, Parameter] = field(default_factory=dict)
    called: Callable[[str], str] = str

    @property
    def path(self) -> Path:
        """The checkpoint, for messages: its folder, or its file."""
        return self.file or self.shards.folder.path


def hugging_face(shards: Shards, document: Mapping[str, Any] | None) -> Source:
    """Return the source that a folder of Hugging Face's layout is.

    `document` is its config.json, None where there is none, for which it raises CheckpointError.
    """
    folder = shards.folder
    where = str(folder.path / CONFIG)
    return Source(shards, folder, folder.read_json(CONFIG) if document is None else document, where)
