"""TargetContract: what the runtime must know of a target's graphs, in one value per target.

What a target cannot do at all is listed where the exporter finds it too, in
`gptoss_onnx.manifest.NOT_OFFERED`; the cache's layout and the choice of kernels refuse it.

B batch, S columns of a call, T tokens of a row after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.choices import Target
from gptoss_onnx.runtime.cache_layout import CacheLayout, RingLayout
from gptoss_onnx.runtime.contrib_layout import ContribLayout

RunningKernels = Literal["native", "portable", "contrib"]


@dataclass(frozen=True)
class CallInputs:
    """One call of the graph; the inputs of each target are attributes of this, by name."""

    input_ids: NDArray[np.int64]  # (B, S)
    past_lengths: NDArray[np.int64]  # (B)
    new_lengths: NDArray[np.int64]  # (B)
    logit_positions: NDArray[np.int64]  # (B, kept)

    @property
    def attention_mask(self) -> NDArray[np.int64]:
        """Ones (B, T): every row is as long as the first, see ContribLayout."""
        batch, columns = self.input_ids.shape
        return np.ones((batch, int(self.past_lengths[0]) + columns), np.int64)


@dataclass(frozen=True)
class TargetContract:
    """What the graphs of a target take and give.

    Attributes:
        call_inputs: the inputs beside the caches, attributes of `CallInputs`.
        optional_inputs: those of them that a graph need not have.
        layout: how the caches lie in their buffers.
        kernels: what can run the graph; with several, a session chooses.
        allocates_logits: ONNX Runtime must allocate the logits. Those of several positions have
            another shape than target ort declares (onnxruntime-genai wants it to), and then ONNX
            Runtime takes no buffer of the caller's.
    """

    call_inputs: tuple[str, ...]
    optional_inputs: frozenset[str]
    layout: CacheLayout
    kernels: tuple[RunningKernels, ...]
    allocates_logits: bool


CONTRACTS: Mapping[Target, TargetContract] = {
    "portable": TargetContract(
        call_inputs=("input_ids", "past_lengths", "new_lengths", "logit_positions"),
        optional_inputs=frozenset(),
        layout=RingLayout(),
        kernels=("native", "portable"),
        allocates_logits=False,
    ),
    "ort": TargetContract(
        call_inputs=("input_ids", "attention_mask", "logit_positions"),
        optional_inputs=frozenset({"logit_positions"}),
        layout=ContribLayout(),
        kernels=("contrib",),
        allocates_logits=True,
    ),
}
