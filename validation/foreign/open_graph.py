"""One graph of an export in ONNX Runtime, called with whole arrays.

B batch, S columns, P cached columns, K kv heads, D head dim, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.reference import DecoderConfig
from gptoss_onnx.runtime.environment import (
    execution_providers,
    load_onnxruntime,
    onnxruntime_errors,
)
from gptoss_onnx.validation.cases.driven import NotAvailableError
from gptoss_onnx.validation.foreign.cache import Pair
from gptoss_onnx.validation.foreign.graph import ForeignGraph
from gptoss_onnx.validation.foreign.interface import (
    CACHE_POSITION,
    INPUT_IDS,
    LOGITS,
    LOGITS_TO_KEEP,
    MASK,
    POSITIONS,
    Interface,
)
from gptoss_onnx.validation.foreign.padding import Call

GQA, GQA_PAST_KEY, GQA_BIAS = "GroupQueryAttention", 3, 10  # the op and its inputs
Answer = tuple[NDArray[np.float32], list[Pair]]  # logits (B, S or 1, V), caches (B, K, P', D)


@dataclass(frozen=True)
class OpenForeignGraph:
    """A graph in ONNX Runtime; nothing but ONNX Runtime's own ops is loaded for it.

    Attributes:
        file: what was read of the file before.
        interface: its inputs and outputs.
    """

    file: ForeignGraph
    interface: Interface
    onnxruntime: Any
    inference: Any

    @classmethod
    def load(cls, file: ForeignGraph, config: DecoderConfig, threads: int | None) -> Self:
        """Load a graph on the CPU.

        Raises PackageError if ONNX Runtime cannot load it or the cases cannot drive it, ParityError
        if it is of another model than `config`, RuntimeUnavailable without ONNX Runtime.
        """
        onnxruntime = load_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = execution_providers(onnxruntime, "cpu")
        path = str(file.path)
        with onnxruntime_errors(onnxruntime, PackageError, f"{path}: ONNX Runtime cannot load it"):
            inference = onnxruntime.InferenceSession(path, options, providers=providers)
        return cls(file, Interface.of(inference, path, config), onnxruntime, inference)

    def run(self, call: Call) -> Answer:
        """Run a call.

        Raises NotAvailableError for a batch or a number of columns that the graph does not take,
        RuntimeUnavailable if ONNX Runtime fails.
        """
        interface, (batch, columns) = self.interface, call.input_ids.shape
        for what, fixed, found in (
            ("rows", interface.batch, batch),
            ("tokens a row", interface.columns, columns),
        ):
            if fixed not in (None, found):
                raise NotAvailableError(
                    f"{self.file.path.name} takes calls of {fixed} {what} alone"
                )
        feeds = {name: self._input(name, call) for name in interface.call_inputs}
        feeds |= {
            name: np.asarray(width, interface.types[name])
            for name, width in interface.widths.items()
        }
        for names, pair in zip(interface.caches, call.past, strict=True):
            if names.past is not None:
                feeds |= dict(zip(names.past, pair, strict=True))
        outputs = [LOGITS, *(name for names in interface.caches for name in names.present)]
        what = f"{self.file.path.name}: ONNX Runtime failed while running the graph"
        with onnxruntime_errors(self.onnxruntime, RuntimeUnavailable, what):
            logits, *present = self.inference.run(outputs, feeds)
        return logits.astype(np.float32), list(zip(present[::2], present[1::2], strict=True))

    @property
    def windows(self) -> dict[int, int]:
        """Layers whose caches have a fixed size, with that size: the window of GroupQueryAttention
        with `sliding_window_cache`.
        """
        sizes = {
            node.inputs[GQA_PAST_KEY]: node.attributes.get("local_window_size", 0)
            for node in self.file.nodes(GQA)
            if node.attributes.get("sliding_window_cache") and len(node.inputs) > GQA_PAST_KEY
        }
        return {
            layer: sizes[names.past[0]]
            for layer, names in enumerate(self.interface.caches)
            if names.past is not None and names.past[0] in sizes
        }

    @property
    def pads_right(self) -> bool:
        """Whether the graph counts a row's tokens from the mask, as GroupQueryAttention without a
        bias does.
        """
        nodes = self.file.nodes(GQA)
        return any(len(node.inputs) <= GQA_BIAS or not node.inputs[GQA_BIAS] for node in nodes)

    def _input(self, name: str, call: Call) -> NDArray[Any]:
        past = call.attention_mask.shape[1] - call.input_ids.shape[1]
        values: dict[str, Any] = {
            INPUT_IDS: call.input_ids,
            MASK: call.attention_mask,
            POSITIONS: call.position_ids,
            CACHE_POSITION: past + np.arange(call.input_ids.shape[1]),
            LOGITS_TO_KEEP: 0,  # all of them
        }
        return np.asarray(values[name], self.interface.types[name])
