"""Damage a checkpoint folder in a chosen way, and read what opening it then says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.layer_names import layer_of
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


def shard_by_layer(folder: Path) -> dict[int | None, str]:
    """Split the weights into a file for each layer, and one for the others (None); returns the
    files' names.
    """
    tensors = load_file(folder / SINGLE)
    names = {layer: f"model-{layer}.safetensors" for layer in map(layer_of, tensors)}
    for layer, name in names.items():
        own = {key: value.clone() for key, value in tensors.items() if layer_of(key) == layer}
        save_file(own, folder / name)
    (folder / SINGLE).unlink()
    weight_map = {key: names[layer_of(key)] for key in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return names


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
