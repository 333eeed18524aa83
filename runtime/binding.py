"""Binding: the first rows of one KV cache bound once to one ONNX Runtime session, so that a call
rebinds only its small inputs.

B rows that are bound, V vocabulary.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.manifest import HIDDEN
from gptoss_onnx.runtime.cache_buffer import CacheBuffer
from gptoss_onnx.runtime.environment import onnxruntime_errors
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.target import LOGITS, CallInputs, TargetContract


class Binding:
    """The buffers of a cache bound as both past and present: the graph updates them where they are.

    It refers to the buffers, so a cache drops it when it reallocates or closes. A row is one piece
    of a buffer, so the first rows are the beginning of it, and make a batch of their own.

    Attributes:
        watched: values of further outputs of the graph, by name, as the last run gave them.
    """

    def __init__(
        self,
        onnxruntime: ModuleType,
        session: Any,
        cache: KVCache,
        width: int,
        contract: TargetContract,
        rows: int | None = None,
        watch: Sequence[str] = (),
    ) -> None:
        self.session = session
        self.watched: dict[str, NDArray[Any]] = {}
        self._watch = tuple(watch)
        self._contract = contract
        self._onnxruntime = onnxruntime
        self._width = width
        self._on_device = cache.device != "cpu"
        self._io = session.io_binding()
        self._buffers = cache.buffers  # what is bound by address is not kept by ONNX Runtime
        part = None if rows in (None, cache.batch) else rows
        for layer, (key, value) in zip(cache.layers, cache.buffers, strict=True):
            self._bind_buffer(layer.past_key, layer.present_key, key, part)
            self._bind_buffer(layer.past_value, layer.present_value, value, part)

    def run(self, call: CallInputs) -> NDArray[np.float32]:
        """Run the graph once and return fresh logits (B, kept, V), of a stage without the last
        layer what it hands on (B·S, width).

        Raises RuntimeUnavailable when ONNX Runtime fails; what the buffers hold from the first new
        token on is then undefined.
        """
        for name in self._contract.call_inputs:
            dtype = np.float32 if name == HIDDEN else np.int64
            self._bind_input(name, np.ascontiguousarray(getattr(call, name), dtype))
        for name in self._watch:  # anew, since their shapes change
            self._io.bind_output(name, "cpu")
        name = self._contract.result
        rows = call.logit_positions.shape if name == LOGITS else (call.input_ids.size,)
        result = empty_logits((*rows, self._width))
        if self._contract.allocates_logits:
            self._io.bind_output(name, "cpu")
        else:
            # Bound by address, so the graph writes the array that is returned; bound anew, since
            # its shape may change.
            self._io.bind_output(name, "cpu", 0, np.float32, result.shape, result.ctypes.data)
        with onnxruntime_errors(
            self._onnxruntime, RuntimeUnavailable, "ONNX Runtime failed while running the graph"
        ):
            self.session.run_with_iobinding(self._io)
            if self._on_device:
                self._io.synchronize_outputs()
        if self._contract.allocates_logits:
            result[:] = self._io.get_outputs()[-1].numpy()  # bound after all others
        if self._watch:
            found = self._io.get_outputs()[-1 - len(self._watch) : -1]  # between caches and logits
            names = zip(self._watch, found, strict=True)
            self.watched = {name: value.numpy() for name, value in names}
        return result

    def _bind_buffer(self, past: str, present: str, buffer: CacheBuffer, rows: int | None) -> None:
        if rows is None:
            self._io.bind_ortvalue_input(past, buffer.value)
            self._io.bind_ortvalue_output(present, buffer.value)
        else:
            place = buffer.place(rows)
            self._io.bind_input(past, *place)
            self._io.bind_output(present, *place)

    def _bind_input(self, name: str, array: NDArray[Any]) -> None:
        if name in self._contract.optional_inputs:  # bind_cpu_input does not know them
            value = self._onnxruntime.OrtValue.ortvalue_from_numpy(array)
            self._io.bind_ortvalue_input(name, value)
        else:
            self._io.bind_cpu_input(name, array)


def empty_logits(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return zeros for logits; raises RuntimeUnavailable where there is no memory for so many."""
    try:
        return np.zeros(shape, np.float32)
    except (MemoryError, ValueError, OverflowError) as error:
        raise RuntimeUnavailable(
            f"logits: no memory for {' x '.join(map(str, shape))} numbers; ask for fewer "
            "logit_positions"
        ) from error
