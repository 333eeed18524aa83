"""MXFP4 experts of a package, changed in its files: laid out by columns, or with other scales."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def by_columns(blocks: Bytes) -> Bytes:
    """Return blocks (E, N, K/32, 16), two columns of a row in a byte, as (E, K, N/2), two rows of a
    column in a byte: what ONNX Runtime takes on CUDA.
    """
    experts, rows = blocks.shape[:2]
    packed = blocks.reshape(experts, rows, -1)
    values = np.stack([packed & 15, packed >> 4], axis=-1).reshape(experts, rows, -1)
    columns = values.transpose(0, 2, 1)
    return columns[..., 0::2] | columns[..., 1::2] << 4


def shifted(scales: Bytes) -> Bytes:
    """Return scales (E, N, K/32) with the first one of each row at its end."""
    return np.roll(scales, -1, axis=-1)


def change_experts(
    package: Path, folder: Path, kind: str, change: Callable[[Bytes], Bytes]
) -> Path:
    """Copy a package to `folder`, with all tensors of the experts changed whose names end in `kind`
    (`blocks` or `scales`).
    """
    copy = Path(shutil.copytree(package, folder))
    for file in copy.glob("*.safetensors"):
        content = bytearray(file.read_bytes())
        start = 8 + struct.unpack_from("<Q", content)[0]
        for name, entry in json.loads(content[8:start]).items():
            if not name.endswith(f"_{kind}"):
                continue
            begin, end = (start + offset for offset in entry["data_offsets"])
            found = np.frombuffer(content[begin:end], np.uint8).reshape(entry["shape"])
            content[begin:end] = change(found).tobytes()
        file.unlink()  # it may be a link to the checkpoint's
        file.write_bytes(content)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["weights"]["mode"] = "copy"  # whose times are not compared
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy
