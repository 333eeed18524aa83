"""Parts of a tensor's memory as tensors of their own, wherever it lies: copies between them stay on
the device.

ONNX Runtime's Python API copies whole OrtValues (`update_inplace`), and takes the memory of others
by DLPack. So a part is a DLPack tensor over an address inside an OrtValue. DLPack's C structures
are those of version 0.8 (`dlpack.h`).

K kv heads, N positions, D head dim.
"""

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DEVICES = {"cpu": 1, "cuda": 2}  # DLDeviceType
_FLOAT = 2  # DLDataTypeCode
_BITS = {"float32": 32, "float16": 16}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int),
        ("device_id", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]  # as ctypes has it
def _release(address: int) -> None:
    """Let go of what a tensor was made of; called once, by whoever took the tensor."""
    kept = ctypes.cast(_Managed.from_address(address).context, ctypes.py_object)
    ctypes.pythonapi.Py_DecRef(kept)


@dataclass(frozen=True)
class DeviceBlock:
    """Keys or values of a row (K, N, D) in memory of a device.

    `value` is the OrtValue that owns it.
    """

    value: Any
    dtype: str
    device: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, N, D)."""
        return tuple(self.value.shape())

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * _BITS[self.dtype] // 8

    def numpy(self) -> NDArray[Any]:
        """Return a copy on the CPU."""
        return np.array(self.value.numpy())

    def part(self, first: int, count: int) -> Any:
        """Return `count` elements from `first` on as an OrtValue over the same memory."""
        return part_of(self.value, self.dtype, self.device, first, count)


def part_of(value: Any, dtype: str, device: str, first: int, count: int) -> Any:
    """Return `count` elements of an OrtValue from `first` on, as an OrtValue (count) over the same
    memory, which it keeps.
    """
    bits = _BITS[dtype]
    shape = (ctypes.c_int64 * 1)(count)
    address = value.data_ptr() + first * bits // 8
    tensor = _Tensor(address, _DEVICES[device], 0, 1, _FLOAT, bits, 1, shape, None, 0)
    managed = _Managed(tensor, None, _release)
    kept = (value, shape, managed)  # alive until `_release`
    managed.context = id(kept)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype = ctypes.py_object
    new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return type(value).from_dlpack(new_capsule(ctypes.addressof(managed), b"dltensor", None))
