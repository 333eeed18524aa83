"""ONNX files as a stranger may change them: tensors whose bytes lie in another file."""

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto

Edit = Callable[[onnx.ModelProto], None]


def change_graph(package: Path, change: Edit) -> None:
    """Change the ONNX file of a package."""
    path = package / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def external(location: str = "/etc/passwd", offset: int = 0, length: int = 4) -> TensorProto:
    """Return a tensor of bytes that lie in another file."""
    tensor = TensorProto(name="stolen", data_type=TensorProto.UINT8, dims=[length])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor
