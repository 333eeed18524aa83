"""Binding: one KV cache bound once to one ONNX Runtime session, so that a step rebinds only its
small inputs.

B batch, S columns of this call, T tokens of a row after it, V vocabulary.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.choices import Target
from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.runtime.environment import onnxruntime_errors
from gptoss_onnx.runtime.kv_cache import KVCache

# The inputs of a step, by target, in the order of `Binding.run`; the caches come beside them.
STEP_INPUTS: Mapping[Target, tuple[str, ...]] = {
    "portable": ("input_ids", "past_lengths", "new_lengths", "logit_positions"),
    "ort": ("input_ids", "attention_mask", "logit_positions"),
}
OPTIONAL_INPUTS: Mapping[Target, tuple[str, ...]] = {"portable": (), "ort": ("logit_positions",)}
LOGITS = "logits"


class Binding:
    """The buffers of a cache bound as both past and present: the graph updates them where they are.

    It refers to the buffers, so a cache drops it when it reallocates or closes.
    """

    def __init__(
        self, onnxruntime: ModuleType, session: Any, cache: KVCache, vocab: int, target: Target
    ) -> None:
        self.session = session
        self._target = target
        # Logits of several positions have another shape than target ort declares (onnxruntime-genai
        # wants it to): ONNX Runtime then only takes a buffer of its own.
        self._allocates = target == "ort"
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
        """Run the graph once on (B, S), (B), (B) and (B, kept) and return fresh logits (B, kept,
        V).

        Raises RuntimeUnavailable when ONNX Runtime fails; what the buffers hold from the first new
        token on is then undefined.
        """
        if self._target == "ort":  # every row as long as the first, see ContribLayout
            # (B, T)
            mask = np.ones((len(input_ids), int(past_lengths[0]) + input_ids.shape[1]), np.int64)
            self._bind_step(input_ids, mask, logit_positions)
        else:
            self._bind_step(input_ids, past_lengths, new_lengths, logit_positions)
        logits = empty_logits((*logit_positions.shape, self._vocab))
        if self._allocates:
            self._io.bind_output(LOGITS, "cpu")
        else:
            # Bound by address, so the graph writes the array that is returned; bound anew, since
            # its shape may change.
            self._io.bind_output(LOGITS, "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        with onnxruntime_errors(
            self._onnxruntime, RuntimeUnavailable, "ONNX Runtime failed while running the graph"
        ):
            self.session.run_with_iobinding(self._io)
            if self._on_device:
                self._io.synchronize_outputs()
        if self._allocates:
            logits[:] = self._io.get_outputs()[-1].numpy()  # bound after the caches
        return logits

    def _bind_step(self, *arrays: NDArray[np.int64]) -> None:
        for name, array in zip(STEP_INPUTS[self._target], arrays, strict=True):
            given = np.ascontiguousarray(array, np.int64)
            if name in OPTIONAL_INPUTS[self._target]:  # bind_cpu_input does not know them
                self._io.bind_ortvalue_input(
                    name, self._onnxruntime.OrtValue.ortvalue_from_numpy(given)
                )
            else:
                self._io.bind_cpu_input(name, given)


def empty_logits(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return zeros for logits; raises RuntimeUnavailable where there is no memory for so many."""
    try:
        return np.zeros(shape, np.float32)
    except (MemoryError, ValueError, OverflowError) as error:
        raise RuntimeUnavailable(
            f"logits: no memory for {' x '.join(map(str, shape))} numbers; ask for fewer "
            "logit_positions"
        ) from error
