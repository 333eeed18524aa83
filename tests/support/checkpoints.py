"""Damage a checkpoint folder in a chosen way, and read what opening it then says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference import open_checkpoint

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
Q = "model.layers.0.self_attn.q_proj.weight"
BLOCKS = "model.layers.1.mlp.experts.down_proj_blocks"
SCALES = "model.layers.1.mlp.experts.down_proj_scales"


def rewrite(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], file: str = SINGLE
) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / file).items()}
    change(tensors)
    save_file(tensors, folder / file)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def failure(folder: Path | str, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text
