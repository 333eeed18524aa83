"""One key or value buffer of a KV cache, as ONNX Runtime sees it: on the CPU or on a CUDA device.

B batch, K kv heads, C slots, D head dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.runtime.environment import onnxruntime_errors

# numpy has no bfloat16: its bits travel as uint16, under the ONNX element type named here.
STORAGE: dict[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,
}
# all ones: infinity or NaN
_EXPONENTS: dict[str, np.unsignedinteger[Any]] = {
    "float32": np.uint32(0x7F800000),
    "float16": np.uint16(0x7C00),
    "bfloat16": np.uint16(0x7F80),
}
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_ELEMENTS = {"float32": 1, "float16": 10, "bfloat16": _BFLOAT16}  # of onnx.TensorProto


@dataclass(frozen=True)
class CacheBuffer:
    """A buffer (B, K, C, D) and the OrtValue over it.

    On the CPU `array` is the memory of `value`; on a device it is None and the memory is ONNX
    Runtime's.
    """

    value: Any
    array: NDArray[Any] | None
    nbytes: int
    dtype: str
    device: str

    @classmethod
    def zeros(
        cls, onnxruntime: ModuleType, shape: tuple[int, ...], dtype: str, device: str
    ) -> Self:
        """Allocate; raises RuntimeUnavailable where the device or its memory cannot hold it."""
        return cls.of(onnxruntime, zeros(shape, STORAGE[dtype], "a buffer"), dtype, device)

    @classmethod
    def of(cls, onnxruntime: ModuleType, array: NDArray[Any], dtype: str, device: str) -> Self:
        """Wrap `array` in place on the CPU, or copy it to the device."""
        if dtype == "bfloat16" and device != "cpu":
            raise RuntimeUnavailable(
                f"KV cache: bfloat16 cannot live on {device}; export with --kv-dtype float16 or "
                "float32"
            )
        values = onnxruntime.OrtValue
        if dtype == "bfloat16":
            value = values.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
            return cls(value, array, array.nbytes, dtype, device)
        if device == "cpu":
            return cls(values.ortvalue_from_numpy(array), array, array.nbytes, dtype, device)
        with onnxruntime_errors(onnxruntime, RuntimeUnavailable, f"KV cache on {device}"):
            value = values.ortvalue_from_numpy(array, device, 0)
        return cls(value, None, array.nbytes, dtype, device)

    def place(self, rows: int) -> tuple[str, int, int, list[int], int]:
        """Return where the first `rows` rows lie, as ONNX Runtime binds memory: device, its number,
        element type, shape and address.
        """
        shape = [rows, *self.shape[1:]]
        return self.device, 0, _ELEMENTS[self.dtype], shape, self.value.data_ptr()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, K, C, D)."""
        batch, heads, slots, width = self.value.shape()
        return batch, heads, slots, width

    def copied(self, slots: int, used: int) -> NDArray[Any]:
        """Return an array of `slots` slots, C or more, with a copy of the first `used` and zeros
        after them.

        Raises RuntimeUnavailable where there is no memory for it.
        """
        held = self.array if self.array is not None else self.value.numpy()
        batch, heads, _, width = held.shape
        enlarged = zeros((batch, heads, slots, width), held.dtype, "a larger buffer")
        enlarged[:, :, :used] = held[:, :, :used]
        return enlarged

    def overflow(self) -> tuple[int, int, int] | None:
        """Return row, head and slot of the first number of a float16 buffer that is not finite,
        None without one.
        """
        held = self.array if self.array is not None else self.value.numpy()
        found = not_finite(held, "float16").any(axis=3)  # (B, K, C)
        if not found.any():
            return None
        row, head, slot = np.argwhere(found)[0]
        return int(row), int(head), int(slot)


BufferPair = tuple[CacheBuffer, CacheBuffer]  # of keys and of values


def drop_first(layers: Sequence[BufferPair], gone: NDArray[Any], held: NDArray[Any]) -> None:
    """Move what rows have in slots `gone` (B) to `held` (B, not included) to slot 0; on the CPU."""
    for row in np.flatnonzero(gone):
        for buffer in chain.from_iterable(layers):
            assert buffer.array is not None
            # numpy copies first where the two overlap
            slots = buffer.array[row]  # (K, C, D)
            slots[:, : held[row] - gone[row]] = slots[:, gone[row] : held[row]]


def not_finite(numbers: NDArray[Any], dtype: str) -> NDArray[np.bool_]:
    """Say which numbers, stored as buffers store `dtype`, are infinite or not a number."""
    exponent = _EXPONENTS[dtype]
    found: NDArray[np.bool_] = (numbers.view(exponent.dtype) & exponent) == exponent
    return found


def find_overflow(layers: Sequence[BufferPair]) -> str | None:
    """Say where float16 buffers first hold a number that is not finite; None where they hold
    none.
    """
    for index, buffers in enumerate(layers):
        for side, buffer in zip(("key", "value"), buffers, strict=True):
            place = buffer.overflow()
            if place is not None:
                row, head, slot = place
                where = f"row {row}, head {head}, slot {slot}"
                return f"layer {index}: the {side} of {where} is not finite"
    return None


def zeros(shape: tuple[int, ...], dtype: DTypeLike, what: str) -> NDArray[Any]:
    """Return zeros whose untouched pages cost nothing; raises RuntimeUnavailable where memory
    cannot hold them.
    """
    try:
        return np.zeros(shape, dtype)
    # numpy: too much, or more than it can count
    except (MemoryError, ValueError, OverflowError) as error:
        raise RuntimeUnavailable(
            f"KV cache: no memory for {what} of shape {shape}; ask for less capacity, or fewer rows"
        ) from error
