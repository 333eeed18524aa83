"""Binding: one KV cache bound once to one ONNX Runtime session, so that a step rebinds only its small inputs.

B batch, S columns of this call, V vocabulary.
"""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.runtime.environment import onnxruntime_errors
from gptoss_onnx.runtime.kv_cache import KVCache

STEP_INPUTS = ("input_ids", "past_lengths", "new_lengths", "logit_positions")
LOGITS = "logits"


class Binding:
    """The buffers of a cache bound as both past and present: the graph updates them where they are.

    It refers to the buffers, so a cache drops it when it reallocates or closes.
    """

    def __init__(self, onnxruntime: ModuleType, session: Any, cache: KVCache, vocab: int) -> None:
        self.session = session
        self._onnxruntime = onnxruntime
        self._vocab = vocab
        self._on_device = cache.device != "cpu"
        self._io = session.io_binding()
        for layer, (key, value) in zip(cache.layers, cache.buffers, strict=True):
            self._io.bind_ortvalue_input(layer.past_key, key.value)
            self._io.bind_ortvalue_input(layer.past_value, value.value)
            self._io.bind_ortvalue_output(layer.present_key, key.value)
            self._io.bind_ortvalue_output(layer.present_value, value.value)

    def run(
        self,
        input_ids: NDArray[np.int64],
        past_lengths: NDArray[np.int64],
        new_lengths: NDArray[np.int64],
        logit_positions: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Run the graph once on (B, S), (B), (B) and (B, kept) and return fresh logits (B, kept, V).

        Raises RuntimeUnavailable when ONNX Runtime fails; what the buffers hold from the first new token on
        is then undefined.
        """
        steps = (input_ids, past_lengths, new_lengths, logit_positions)
        for name, array in zip(STEP_INPUTS, steps, strict=True):
            self._io.bind_cpu_input(name, np.ascontiguousarray(array, np.int64))
        logits = np.empty((*logit_positions.shape, self._vocab), np.float32)
        # Bound by address, so the graph writes the array that is returned; bound anew, since its shape may
        # change.
        self._io.bind_output(LOGITS, "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        with onnxruntime_errors(self._onnxruntime, RuntimeUnavailable, "ONNX Runtime failed while running the graph"):
            self.session.run_with_iobinding(self._io)
            if self._on_device:
                self._io.synchronize_outputs()
        return logits
