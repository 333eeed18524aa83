"""What an export wrote: where weights lie, and a manifest that its schema has passed."""

import json
from pathlib import Path

import jsonschema
import onnx

import gptoss_onnx
from gptoss_onnx.manifest import Manifest


def weight_files(model: onnx.ModelProto) -> dict[str, str]:
    """Return the file of each initializer that lies in one, by name."""
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}["location"]
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def valid_manifest(folder: Path) -> Manifest:
    """Return a package's manifest, once it is what the schema says."""
    schema = json.loads((Path(gptoss_onnx.__file__).parent / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(
        json.loads((folder / "manifest.json").read_text())
    )
    return Manifest.read(folder)
