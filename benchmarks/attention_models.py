"""The models that attention.py times: one kind of layer many times over, ours and the peer's, with
the same random inputs.
"""

import time
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

HEADS, KV_HEADS, HEAD_DIM, WINDOW = 64, 8, 64, 128
SCALE = HEAD_DIM**-0.5
# of one decode model, in float32; a few times the last-level cache where that is possible
CACHE_BYTES = 256 << 20
MOST_LAYERS = 48
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
PEER = "GroupQueryAttention"


@dataclass(frozen=True)
class Case:
    """One call on one kind of layer."""

    name: str
    past: int
    new: int
    window: int  # 0: a full layer
    rotary: int = HEAD_DIM  # dimensions of a head that rotate; fewer do in neighbouring pairs

    @property
    def interleaved(self) -> int:
        """1 if dimension 2i pairs with 2i + 1."""
        return int(self.rotary < HEAD_DIM)

    @property
    def capacity(self) -> int:
        """Slots of the cache: the fewest that the call may have."""
        return self.window + self.new - 1 if self.window else self.past + self.new

    @property
    def layers(self) -> int:
        """Layers of the model; prefill reads its cache from the processor's own anyway."""
        if self.new > 1:
            return 1
        return min(
            MOST_LAYERS, max(1, CACHE_BYTES // (2 * 4 * KV_HEADS * HEAD_DIM * self.capacity))
        )


class Inputs:
    """Random inputs of one case, alike for every variant."""

    def __init__(self, case: Case) -> None:
        random = np.random.default_rng(0)
        columns = (1, case.new)
        self.query = random.standard_normal((*columns, HEADS * HEAD_DIM), np.float32)
        self.key = random.standard_normal((*columns, KV_HEADS * HEAD_DIM), np.float32)
        self.value = random.standard_normal((*columns, KV_HEADS * HEAD_DIM), np.float32)
        self.sinks = random.standard_normal(HEADS, np.float32)
        positions = np.arange(case.past + case.new)[:, None]
        pairs = case.rotary // 2
        angles = positions / 150000.0 ** (np.arange(pairs) / pairs)
        self.cos, self.sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        # Of the tokens before this call, the last `capacity`, in order of their positions.
        self.past = random.standard_normal((2, 1, KV_HEADS, case.capacity, HEAD_DIM), np.float32)


class Layers:
    """One session over all layers of a case, its buffers bound, past and present one memory."""

    def __init__(
        self,
        case: Case,
        inputs: Inputs,
        cache: str,
        activations: str | None,
        session: onnxruntime.InferenceSession,
    ) -> None:
        self.cache_itemsize = 4 if cache == "float32" else 2
        self._session = session
        self._binding = session.io_binding()
        feeds = _peer_feeds(case, inputs) if activations is None else _sink_feeds(case, inputs)
        # In our ring the token at position p lies in slot p mod C; the peer's window keeps its
        # slots in order.
        turn = (
            (case.past - case.capacity) % case.capacity
            if case.window and activations is not None
            else 0
        )
        self._kept = {name: _ort_value(array, "float32") for name, array in feeds.items()}
        for layer in range(case.layers):
            for name, past in zip(("key", "value"), inputs.past, strict=True):
                buffer = _ort_value(np.ascontiguousarray(np.roll(past, turn, axis=2)), cache)
                self._kept[f"past_{name}_{layer}"] = buffer
                self._binding.bind_ortvalue_output(f"present_{name}_{layer}", buffer)
            output = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(inputs.query))
            self._binding.bind_ortvalue_output(f"output_{layer}", output)
            self._outputs = output if layer == 0 else self._outputs
        for name, value in self._kept.items():
            self._binding.bind_ortvalue_input(name, value)
        self._layers = case.layers

    def first_output(self) -> np.ndarray:
        """Run once and return the first layer's output."""
        self._session.run_with_iobinding(self._binding)
        return self._outputs.numpy().copy()

    def seconds(self) -> float:
        """Run once and return the seconds a layer took; the same call again writes the same
        slots.
        """
        start = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        return (time.perf_counter() - start) / self._layers


def _sink_feeds(case: Case, inputs: Inputs) -> dict[str, np.ndarray]:
    return {
        "query": inputs.query,
        "key": inputs.key,
        "value": inputs.value,
        "past_lengths": np.array([case.past]),
        "new_lengths": np.array([case.new]),
        "sinks": inputs.sinks,
        "cos": inputs.cos[None, case.past :],
        "sin": inputs.sin[None, case.past :],
    }


def _peer_feeds(case: Case, inputs: Inputs) -> dict[str, np.ndarray]:
    total = case.past + case.new
    return {
        "query": inputs.query,
        "key": inputs.key,
        "value": inputs.value,
        "seqlens_k": np.array([total - 1], np.int32),
        "total": np.array([total], np.int32),
        "cos": inputs.cos,
        "sin": inputs.sin,
        "sinks": inputs.sinks,
    }


def sink_model(case: Case, cache: str) -> bytes:
    """Return a model of ai.gptoss SinkAttention nodes."""
    names = [
        "query",
        "key",
        "value",
        "past_key_{}",
        "past_value_{}",
        "past_lengths",
        "new_lengths",
        "sinks",
        "cos",
        "sin",
    ]
    attributes = {
        "num_heads": HEADS,
        "kv_num_heads": KV_HEADS,
        "scale": SCALE,
        "window": case.window,
        "interleaved": case.interleaved,
    }
    return _model(case, "SinkAttention", "ai.gptoss", names, attributes, TYPES[cache])


def gqa_model(case: Case) -> bytes:
    """Return a model of com.microsoft GroupQueryAttention nodes that compute the same."""
    names = [
        "query",
        "key",
        "value",
        "past_key_{}",
        "past_value_{}",
        "seqlens_k",
        "total",
        "cos",
        "sin",
        "",
        "",
        "sinks",
    ]
    attributes = {
        "num_heads": HEADS,
        "kv_num_heads": KV_HEADS,
        "scale": SCALE,
        "do_rotary": 1,
        "rotary_interleaved": case.interleaved,
    }
    if case.window:
        attributes |= {"local_window_size": case.window, "sliding_window_cache": 1}
    return _model(case, PEER, "com.microsoft", names, attributes, TensorProto.FLOAT)


def _model(
    case: Case,
    op: str,
    domain: str,
    names: list[str],
    attributes: dict[str, object],
    cache_type: int,
) -> bytes:
    nodes, caches, outputs = [], [], []
    for layer in range(case.layers):
        present = [f"output_{layer}", f"present_key_{layer}", f"present_value_{layer}"]
        nodes.append(
            helper.make_node(
                op, [name.format(layer) for name in names], present, domain=domain, **attributes
            )
        )
        caches += [
            helper.make_tensor_value_info(names[i].format(layer), cache_type, [None] * 4)
            for i in (3, 4)
        ]
        outputs += [
            helper.make_tensor_value_info(name, cache_type, [None] * 4) for name in present[1:]
        ]
        outputs.append(helper.make_tensor_value_info(present[0], TensorProto.FLOAT, [None] * 3))
    types = {"past_lengths": 7, "new_lengths": 7, "seqlens_k": 6, "total": 6}  # int64, int32
    ranks = {"query": 3, "key": 3, "value": 3, "cos": 3 if domain == "ai.gptoss" else 2}
    ranks["sin"] = ranks["cos"]
    shared = [
        helper.make_tensor_value_info(
            name, types.get(name, TensorProto.FLOAT), [None] * ranks.get(name, 1)
        )
        for name in names
        if name and "{" not in name
    ]
    graph = helper.make_graph(nodes, op, shared + caches, outputs)
    imports = [helper.make_opsetid("", 24), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=11).SerializeToString()


def _ort_value(array: np.ndarray, dtype: str) -> onnxruntime.OrtValue:
    if dtype == "bfloat16":
        bits = (array.view(np.uint32) >> 16).astype(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    if dtype == "float16":
        array = array.astype(np.float16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(array.copy())
