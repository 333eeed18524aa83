"""TargetContract: what the runtime must know of a target's graphs, in one value per target.

What a package cannot do at all its manifest lists, in the words of `gptoss_onnx.offered`; the
cache's layout and the choice of kernels refuse it.

B batch, S columns of a call, T tokens of a row after it.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import HIDDEN, NEXT_HIDDEN, Manifest, Stage
from gptoss_onnx.offered import BY_ROW
from gptoss_onnx.runtime.cache_layout import CacheLayout, RingLayout
from gptoss_onnx.runtime.contrib_layout import ContribLayout
from gptoss_onnx.runtime.window_layout import WindowLayout

RunningKernels = Literal["native", "portable", "contrib"]
LOGITS = "logits"


@dataclass(frozen=True)
class CallInputs:
    """One call of the graph; the inputs of each target are attributes of this, by name.

    A stage that has not the first layer takes `hidden`, what the stage before it gives.
    """

    input_ids: NDArray[np.int64]  # (B, S)
    past_lengths: NDArray[np.int64]  # (B)
    new_lengths: NDArray[np.int64]  # (B)
    logit_positions: NDArray[np.int64]  # (B, kept)
    window_starts: NDArray[np.int64]  # (B)
    hidden: NDArray[np.float32] | None = None  # (B·S, width)

    @property
    def attention_mask(self) -> NDArray[np.int64]:
        """(B, T of the longest row): a one for each token of a row, zeros after them."""
        totals = self.past_lengths + self.new_lengths
        return (np.arange(totals.max()) < totals[:, None]).astype(np.int64)


@dataclass(frozen=True)
class TargetContract:
    """What the graphs of a target take and give.

    Attributes:
        call_inputs: the inputs beside the caches, attributes of `CallInputs`.
        optional_inputs: those of them that a graph need not have.
        layout: how the caches lie in their buffers.
        kernels: what can run the graph; with several, a session chooses.
        result: the output beside the caches: logits, or what a stage hands on.
        allocates_logits: ONNX Runtime must allocate the logits. Those of several positions have
            another shape than target ort declares (onnxruntime-genai wants it to), and then ONNX
            Runtime takes no buffer of the caller's.
    """

    call_inputs: tuple[str, ...]
    optional_inputs: frozenset[str]
    layout: CacheLayout
    kernels: tuple[RunningKernels, ...]
    allocates_logits: bool
    result: str = LOGITS


_PORTABLE = TargetContract(
    call_inputs=("input_ids", "past_lengths", "new_lengths", "logit_positions"),
    optional_inputs=frozenset(),
    layout=RingLayout(),
    kernels=("native", "portable"),
    allocates_logits=False,
)
# The same graph in standard ops, for which there are no native kernels.
_STANDARD = replace(_PORTABLE, kernels=("portable",))


def contract_of(manifest: Manifest) -> TargetContract:
    """Return what the graph of a package takes and gives."""
    whole = _of_all_layers(manifest)
    return whole if manifest.stage is None else _of_stage(whole, manifest.stage)


def result_width(manifest: Manifest) -> int:
    """Return the size of the last dimension of a graph's result, in numbers."""
    result = contract_of(manifest).result
    if result == LOGITS:
        return manifest.vocab_size
    width = next((entry.shape[-1] for entry in manifest.outputs if entry.name == result), None)
    if not isinstance(width, int):
        raise PackageError(
            f"manifest: outputs: {result}: found width {width!r:.60}, expected a number; export "
            "the package again"
        )
    return width


def _of_stage(whole: TargetContract, stage: Stage) -> TargetContract:
    """Return the contract of a stage, where `whole` is that of all layers."""
    inputs, optional, result = whole.call_inputs, whole.optional_inputs, whole.result
    if not stage.is_last:
        inputs = tuple(name for name in inputs if name != "logit_positions")
        optional, result = optional - {"logit_positions"}, NEXT_HIDDEN
    if not stage.is_first:
        inputs = (*inputs, HIDDEN)
    return replace(
        whole,
        call_inputs=inputs,
        optional_inputs=optional,
        result=result,
        allocates_logits=whole.allocates_logits and stage.is_last,
    )


def _of_all_layers(manifest: Manifest) -> TargetContract:
    if manifest.target == "portable":
        return _PORTABLE
    if manifest.target == "openvino":
        return _STANDARD
    optional, layout = ("logit_positions",), _layout(manifest)
    if layout.ragged:
        windows = any(layer.window for layer in manifest.cache)
        optional += ("new_lengths", *(("window_starts",) if windows else ()))
    return TargetContract(
        call_inputs=("input_ids", "attention_mask", *optional),
        optional_inputs=frozenset(optional),
        layout=layout,
        kernels=("contrib",),
        allocates_logits=True,
    )


def _layout(manifest: Manifest) -> CacheLayout:
    if all(map(manifest.offers, BY_ROW)):
        return WindowLayout(max(layer.window for layer in manifest.cache))
    newer = ", or with --onnxruntime 1.32," if manifest.runs_on("cpu") else ""
    return ContribLayout(f"export with --target portable{newer} for that")
