"""What all weights of a graph have in common: they are byte ranges of safetensors files, and these
need room.
"""

import shutil
from pathlib import Path

import onnx_ir as ir

from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.errors import PackageError

ELEMENT_TYPES = {
    "BF16": ir.DataType.BFLOAT16,
    "F16": ir.DataType.FLOAT16,
    "F32": ir.DataType.FLOAT,
    "I8": ir.DataType.INT8,
    "I32": ir.DataType.INT32,
    "U8": ir.DataType.UINT8,
}


def byte_range(
    tensor: TensorInfo | PlannedTensor,
    location: str,
    offset: int,
    element: ir.DataType | None = None,
    shape: ir.Shape | None = None,
) -> ir.ExternalTensor:
    """Return a graph's name for a tensor that lies `offset` bytes into a file.

    Args:
        tensor: what lies there.
        location: of the file, relative to the graph's folder.
        offset: in bytes.
        element: what the graph reads the bytes as; None is the tensor's own dtype.
        shape: of as many elements; None is the tensor's own.
    """
    element = element or ELEMENT_TYPES[tensor.dtype]
    shape = ir.Shape(tensor.shape) if shape is None else shape
    return ir.ExternalTensor(
        location, offset, tensor.nbytes, element, shape=shape, name=tensor.name, base_dir=""
    )


def require_room(folder: Path, size: int, purpose: str, remedy: str = "free some space") -> None:
    """Refuse to begin writing `size` bytes where they do not fit.

    Args:
        folder: the staged package they are written into.
        size: in bytes.
        purpose: who needs them, as the subject of the message.
        remedy: what its reader can do.

    Raises:
        PackageError: its file system has less room.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        found = f"{purpose} {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise PackageError(f"{folder.parent}: {found}: {remedy}")
