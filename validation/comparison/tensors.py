"""What two constant tensors of graphs differ in, and how elements and types are written for
people.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

# what differs, what was found, what was expected
Difference = tuple[str, str, str]

_E2M1 = ("0", "0.5", "1", "1.5", "2", "3", "4", "6")  # magnitudes of FP4, by the lower three bits


def tensor_differences(found: onnx.TensorProto, expected: onnx.TensorProto) -> Iterator[Difference]:
    """Yield what differs; of elements the first one. External data are not opened.

    Two ways to write the same elements are no difference.
    """
    if found.data_type != expected.data_type:
        yield "dtype", type_name(found.data_type), type_name(expected.data_type)
    if list(found.dims) != list(expected.dims):
        yield "shape", str(list(found.dims)), str(list(expected.dims))
    ours, theirs = (tensor.data_location == tensor.EXTERNAL for tensor in (found, expected))
    if ours != theirs:
        texts = {True: "in a weight file", False: "in the graph"}
        yield "data", texts[ours], texts[theirs]
    elif not ours:
        yield from _elements(found, expected)


def _elements(found: onnx.TensorProto, expected: onnx.TensorProto) -> Iterator[Difference]:
    theirs = onnx.numpy_helper.to_array(expected)
    try:
        ours = onnx.numpy_helper.to_array(found)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        yield "data", f"data that cannot be read ({error})", f"{theirs.size} elements"
        return
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return  # said already
    differing = _differing(ours, theirs)
    if differing.size:
        at = tuple(int(place) for place in np.unravel_index(differing[0], theirs.shape))
        element = f"element {list(at)}" if at else "value"
        more = f" and {differing.size - 1} more" if differing.size > 1 else ""
        yield f"{element}{more}", str(ours[at]), str(theirs[at])


def _differing(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[Any]:
    """Return the flat places where the bits differ: 0.0 and -0.0 do, and a NaN equals itself."""
    if ours.dtype == object:
        return np.flatnonzero(ours.reshape(-1) != theirs.reshape(-1))
    width = ours.dtype.itemsize
    mine, wanted = (np.frombuffer(array.tobytes(), np.uint8) for array in (ours, theirs))
    return np.flatnonzero((mine != wanted).reshape(-1, width).any(axis=1))


def type_name(element: int) -> str:
    """Return the name of an element type of ONNX."""
    known = element in onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(element).lower() if known else f"type {element}"


def stored_element(dtype: str, content: bytes, name: str) -> str:
    """Return an element of a safetensors tensor as people read it.

    Args:
        dtype: in safetensors' spelling.
        content: the element's bytes.
        name: of the tensor; two FP4 numbers share a byte of MXFP4 blocks.
    """
    if dtype == "BF16":
        return str(np.frombuffer(b"\0\0" + content, "<f4")[0])
    if dtype in ("F16", "F32"):
        return str(np.frombuffer(content, "<f2" if dtype == "F16" else "<f4")[0])
    if dtype == "I8":
        return str(int.from_bytes(content, "little", signed=True))
    if name.endswith("_blocks"):
        low, high = content[0] & 15, content[0] >> 4
        pair = ", ".join(("-" if code & 8 else "") + _E2M1[code & 7] for code in (low, high))
        return f"0x{content.hex()} ({pair})"
    return f"0x{content.hex()}"
