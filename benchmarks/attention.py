"""Time SinkAttention on the layers of gpt-oss-20b, beside the machine's read bandwidth and stock
ONNX Runtime.

    python benchmarks/attention.py --threads 2 --json attention.json

Decode of one token and prefill of 512, on full layers and on window layers of 128. Each model holds
as many layers of one kind as make the caches larger than the processor's own, so that every cached
key comes from memory, as in a whole model. The peer is com.microsoft GroupQueryAttention with
`head_sink`, float32, the only cache it knows on CPU that this model can use. All variants of a case
run interleaved; times are medians, speedups medians of the ratios within one round. The first
layer's output is compared with the peer's before anything is timed.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from results import ratio, write_document
from sessions import open_session

from gptoss_onnx.bench.machine import Machine, measure
from gptoss_onnx.custom_ops.library import library_path

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
# Largest difference from the peer that still says the same thing was computed, by cache and
# activation mode.
AGREEMENT = {
    "float32 exact": 1e-4,
    "float16 exact": 2e-2,
    "bfloat16 exact": 1e-1,
    "bfloat16 bf16": 1e-1,
}
PEER = "GroupQueryAttention"


@dataclass(frozen=True)
class Case:
    """One call on one kind of layer."""

    name: str
    past: int
    new: int
    window: int  # 0: a full layer

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


CASES = (
    Case("decode 1k", 1023, 1, 0),
    Case("decode 8k", 8191, 1, 0),
    Case("decode 8k window", 8191, 1, WINDOW),
    Case("prefill 512", 0, 512, 0),
    Case("prefill 512 at 8k", 8192, 512, 0),
    Case("prefill 512 window", 0, 512, WINDOW),
)


@dataclass(frozen=True)
class Result:
    """One variant of one case, per layer."""

    case: str
    variant: str
    milliseconds: float
    speedup: float  # over the peer in the same rounds; above one where ours is faster
    cache_gb_s: float  # bytes of cached keys and values that the queries see, once, by the time
    gflops: float  # two products per visible key and query


def main() -> None:
    """Print a table of all cases, and write the JSON document where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument(
        "--library", type=Path, default=library_path(), help="another build of libgptoss_ops.so"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.library is None:
        sys.exit("attention: the native library is not built")
    machine = measure(arguments.threads)
    print(json.dumps(asdict(machine), indent=2))
    print(
        f"{'case':20} {'variant':20} {'ms a layer':>10} {'speedup':>8} {'cache GB/s':>10} "
        f"{'of read':>8} {'GFLOP/s':>8}"
    )
    results = []
    for case in CASES:
        if arguments.cases is None or case.name in arguments.cases:
            for result in run_case(
                case, arguments.library.resolve(), arguments.threads, arguments.rounds
            ):
                print_row(result, machine)
                results.append(result)
    if arguments.json:
        write_document(arguments.json, machine, results=[asdict(result) for result in results])


def print_row(result: Result, machine: Machine) -> None:
    """Print one line of the table."""
    share = result.cache_gb_s / machine.read_gb_s
    print(
        f"{result.case:20} {result.variant:20} {result.milliseconds:10.3f} {result.speedup:8.2f} "
        f"{result.cache_gb_s:10.1f} {share:8.2f} {result.gflops:8.0f}"
    )


def run_case(case: Case, library: Path, threads: int, rounds: int) -> Iterator[Result]:
    """Time the peer and all variants of ours, and yield their results."""
    inputs = Inputs(case)
    peer = Layers(case, inputs, "float32", None, open_session(gqa_model(case), threads))
    variants = {PEER: peer}
    for cache in TYPES:
        for activations in ("exact", "bf16") if cache == "bfloat16" else ("exact",):
            session = open_session(sink_model(case, cache), threads, library, activations)
            variants[f"{cache} {activations}"] = Layers(case, inputs, cache, activations, session)
    outputs = {name: layers.first_output() for name, layers in variants.items()}  # warms too
    for name, tolerance in AGREEMENT.items():
        difference = float(np.abs(outputs[name] - outputs[PEER]).max())
        if not difference < tolerance:
            sys.exit(
                f"attention: {case.name}: {name} differs from {PEER} by {difference}, expected "
                f"under {tolerance}"
            )
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, layers in variants.items():
            times[name].append(layers.seconds())
    # keys of each query
    seen = np.minimum(case.past + 1 + np.arange(case.new), case.window or np.inf)
    # of all queries together
    keys = min(case.past + case.new, case.window + case.new - 1 if case.window else np.inf)
    for name, layers in variants.items():
        seconds = statistics.median(times[name])
        speedup = ratio(times[PEER], times[name])
        cached = 2 * keys * KV_HEADS * HEAD_DIM * layers.cache_itemsize
        products = 4 * float(seen.sum()) * HEADS * HEAD_DIM
        yield Result(
            case.name,
            name,
            1e3 * seconds,
            speedup,
            cached / seconds / 1e9,
            products / seconds / 1e9,
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
        angles = positions / 150000.0 ** (np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
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
    attributes = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "scale": SCALE, "do_rotary": 1}
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


if __name__ == "__main__":
    main()
