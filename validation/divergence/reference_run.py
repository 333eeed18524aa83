"""The reference's side of replayed calls: it runs each with caches of its own."""

import torch
from torch import Tensor

from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.layers import KeyValue
from gptoss_onnx.runtime.cache_layout import full_slots
from gptoss_onnx.validation.divergence.held import held_by
from gptoss_onnx.validation.divergence.probe import Step
from gptoss_onnx.validation.divergence.recording import Recording


class ReferenceRun:
    """Runs the calls of a recording one after the other; it keeps a cache for each of theirs.

    In a new one slot p holds position p in every layer, which needs no more than the tokens that
    come. What a cache held before its first call is taken from it as it is.
    """

    def __init__(self, model: Decoder, recording: Recording, kv_dtype: str) -> None:
        self._model, self._recording = model, recording
        self._dtype = getattr(torch, kv_dtype)
        self._past: dict[int, list[KeyValue]] = {}

    @torch.inference_mode()
    def run(self, step: Step) -> Tensor:
        """Return the logits of one call, (B, kept, V)."""
        inputs = step.inputs
        if step.cache not in self._past:
            self._past[step.cache] = self._new_cache(step.cache)
        logits, present = self._model(
            torch.from_numpy(inputs.input_ids),
            torch.from_numpy(inputs.past_lengths),
            torch.from_numpy(inputs.new_lengths),
            torch.from_numpy(inputs.logit_positions),
            self._past[step.cache],
        )
        self._past[step.cache] = present
        return logits  # type: ignore[no-any-return]

    def _new_cache(self, number: int) -> list[KeyValue]:
        first = self._recording.caches[number]
        if first.held is not None:
            return held_by(first.held)
        calls = [call for call in self._recording.calls if call.cache == number]
        # columns of padding lie behind the longest row
        ends = [int(call.lengths.max()) + call.request.longest for call in calls]
        slots = min(max(ends), full_slots(first.batch, calls[-1].capacity, first.chunk))
        return self._model.new_cache(first.batch, slots, dtype=self._dtype)
