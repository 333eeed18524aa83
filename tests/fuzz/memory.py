"""Memory that is bound to a session at a chosen address, between bytes that nobody may write."""

import numpy as np
import onnxruntime

from fuzz.case import NUMPY_TYPES, Case, Shape, Tensor

GUARD = 64  # bytes before the data
# NaN in every floating type: what is read from here, or not written, shows in the result
FILL = 0xFF
CPU = ("cpu", 0)


class GuardError(Exception):
    """A kernel wrote where it must not."""


class Buffer:
    """Guard bytes, then the data, then `tail` guard bytes or the end of the allocation."""

    def __init__(self, tensor: Tensor) -> None:
        front = GUARD + tensor.offset
        self.type, self.shape, self.size = tensor.type, tensor.array.shape, tensor.array.nbytes
        self._memory = np.full(front + self.size + tensor.tail, FILL, np.uint8)
        self._data = self._memory[front : front + self.size]
        self._guards = (self._memory[:front], self._memory[front + self.size :])
        self.address = self._memory.ctypes.data + front
        self.put(tensor.array)

    def put(self, array: np.ndarray) -> None:
        """Overwrite the data."""
        if self.size:
            self._data[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    def array(self) -> np.ndarray:
        """Return a copy of the data."""
        return self._data.copy().view(NUMPY_TYPES[self.type]).reshape(self.shape)

    def check(self, name: str) -> None:
        """Raise where a guard byte has changed."""
        if any((guard != FILL).any() for guard in self._guards):
            raise GuardError(f"{name}: the kernel wrote outside its {self.size} bytes")


def empty_output(element: int, shape: Shape) -> Buffer:
    """Return memory for an output, full of NaN."""
    count = int(np.prod(shape, dtype=object))
    buffer = Buffer(Tensor(np.empty(count, NUMPY_TYPES[element]), element))
    buffer.put(np.full(buffer.size, FILL, np.uint8))
    buffer.shape = shape
    return buffer


class Call:
    """One run of a case, in memory of its own."""

    def __init__(self, session: onnxruntime.InferenceSession, case: Case) -> None:
        self._session, self._case = session, case
        self._binding = session.io_binding()
        self._inputs = {
            name: Buffer(tensor) for name, tensor in case.inputs.items() if tensor is not None
        }
        for name, buffer in self._inputs.items():
            self._binding.bind_input(name, *CPU, buffer.type, list(buffer.shape), buffer.address)
        self._outputs = []
        for number, output in enumerate(session.get_outputs()):
            if not case.outputs:  # nothing may come out: ONNX Runtime would allocate it
                self._binding.bind_output(output.name)
                continue
            shared = case.in_place.get(number)
            buffer = self._inputs[shared] if shared else empty_output(*case.outputs[number])
            self._binding.bind_output(
                output.name, *CPU, buffer.type, list(buffer.shape), buffer.address
            )
            self._outputs.append(buffer)

    def run(self) -> list[np.ndarray]:
        """Run and return the outputs; raise `GuardError` where more than those has changed."""
        try:
            self._session.run_with_iobinding(self._binding)
        finally:
            self._check()
        return [buffer.array() for buffer in self._outputs]

    def _check(self) -> None:
        for number, buffer in enumerate(self._outputs):
            buffer.check(f"output {number}")
        shared = set(self._case.in_place.values())
        for name, buffer in self._inputs.items():
            buffer.check(f"input {name}")
            tensor = self._case.inputs[name]
            assert tensor is not None
            if (
                name not in shared
                and buffer.array().tobytes() != np.ascontiguousarray(tensor.array).tobytes()
            ):
                raise GuardError(f"input {name}: the kernel wrote to it")
