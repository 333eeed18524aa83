"""The files of a PEFT adapter: its settings and its tensors, as they lie in a folder of a
stranger's.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.folder import CheckpointFolder
from gptoss_onnx.checkpoint.shards import Shards, read_named
from gptoss_onnx.checkpoint.tensors import FLOATS
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import open_regular
from gptoss_onnx.json_text import parse_json

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
IN_PACKAGE = "adapter.safetensors"  # what a package calls it
PICKLED = "adapter_model.bin"
SETTINGS_LIMIT = 1_000_000  # bytes; one that names every module has some hundred thousand
_READ_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter's folder; no weight byte was interpreted.

    Attributes:
        folder: the adapter's.
        shards: its tensors, by their names in the file, each F32, F16 or BF16.
        settings: what adapter_config.json says; `settings_path` names it for messages.
        settings_sha256: of adapter_config.json.
    """

    folder: CheckpointFolder
    shards: Shards
    settings: Mapping[str, Any]
    settings_sha256: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.path.resolve().name or "adapter"

    @property
    def settings_path(self) -> str:
        """The file of the settings, for messages."""
        return str(self.folder.path / SETTINGS)

    def weights_sha256(self) -> str:
        """Return the sha256 of the file of the tensors, which is read for it."""
        digest = hashlib.sha256()
        with open_regular(self.folder.path / WEIGHTS, CheckpointError) as file:
            while piece := file.read(_READ_AT_ONCE):
                digest.update(piece)
            self.folder.check_open(WEIGHTS, file.fileno())
        return digest.hexdigest()


def read_adapter(path: str | os.PathLike[str]) -> AdapterFiles:
    """Read settings and headers of the adapter in a folder.

    Raises CheckpointError where it is none, where a file is not what it should be, and where a
    tensor holds no floats; one message lists every problem.
    """
    folder = CheckpointFolder(Path(path))
    if not folder.path.is_dir():
        raise CheckpointError(f"{path}: no such folder, expected one with {SETTINGS}")
    content = folder.read(SETTINGS, SETTINGS_LIMIT)
    if content is None:
        raise CheckpointError(
            f"{path}: no {SETTINGS}, expected a folder that PEFT's save_pretrained wrote"
        )
    settings = parse_json(content, str(folder.path / SETTINGS), CheckpointError)
    if not isinstance(settings, dict):
        raise CheckpointError(f"{folder.path / SETTINGS}: expected a JSON object")
    if folder.find(WEIGHTS) is None:
        raise CheckpointError(f"{path}: {_what_instead(folder)}")
    problems = Problems()
    shards = read_named(folder, [WEIGHTS], problems)
    for info in shards.tensors.values():
        if info.dtype not in FLOATS:
            problems.add(f"{info.name}: found dtype {info.dtype}, expected {' or '.join(FLOATS)}")
        if not info.nbytes:
            problems.add(
                f"{info.name}: found shape {info.shape}, expected some elements (saved by a "
                "training that keeps parts of a tensor on several machines: gather them first)"
            )
    problems.check(str(path))
    return AdapterFiles(folder, shards, settings, hashlib.sha256(content).hexdigest())


def _what_instead(folder: CheckpointFolder) -> str:
    if folder.find(PICKLED) is None:
        return f"no {WEIGHTS}: the adapter is incomplete, download it again"
    return (
        f"found {PICKLED}, which is not read (it can run code), expected {WEIGHTS}; convert it: "
        "python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('"
        f"{PICKLED}', weights_only=True), '{WEIGHTS}')\""
    )
