"""Time MoEDispatchMXFP4 on layers of gpt-oss-20b, beside a plain read of as many of its bytes and stock ORT's QMoE.

    python benchmarks/moe.py --threads 2 --json moe.json

Random weights of several layers lie in one memory-mapped file, an order of magnitude beyond the caches. Decode: every
run sends its tokens to other experts of every layer, and alternates with a plain read of other experts' bytes. Prefill:
512 tokens through one layer after the other. QMoE runs interleaved, with int4 weights at accuracy level 4 and with
int8 weights. Times are medians for one layer; shares and speedups are medians of ratios within one round.
"""

import argparse
import json
import mmap
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from sessions import open_session

from gptoss_onnx.custom_ops.library import library_path
from gptoss_onnx.custom_ops.machine import measure, read_seconds

HIDDEN, WIDTH, EXPERTS, TOP_K = 2880, 2880, 32, 4
BLOCK = 32
ALPHA, LIMIT = 1.702, 7.0
MODES = ("exact", "bf16", "int8")
PEERS = {"qmoe_int4": 4, "qmoe_int8": 8}  # bits of a weight
READ = "read"
EXPERT_BYTES = 3 * HIDDEN * WIDTH // BLOCK * 17  # gate, up and down, 17 bytes a block
OPERATIONS_A_TOKEN = 2 * 3 * HIDDEN * WIDTH * TOP_K


@dataclass(frozen=True)
class Result:
    """One contender at one number of tokens; ratios are above one where it is faster than what it is compared with."""

    contender: str
    tokens: int
    milliseconds: float  # of one layer
    gigabytes_a_second: float | None  # of weights, while decoding one token
    gigaflops: float
    share_of_read: float | None
    speedup_over: dict[str, float]  # peer → its time divided by this one's


def main() -> None:
    """Print a table, and write the JSON document where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 4, 8, 512])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--library", type=Path, default=library_path(), help="another build of libgptoss_ops.so")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.library is None:
        sys.exit("moe: the native library is not built")
    machine = measure(arguments.threads)
    print(json.dumps(asdict(machine), indent=2))
    print(
        f"{'contender':12} {'tokens':>6} {'ms/layer':>9} {'GB/s':>6} {'GFLOP/s':>8} {'of read':>8}  speedup over peers"
    )
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments.library.resolve(), arguments.threads, arguments.layers, arguments.peers, Path(folder))
        for tokens in arguments.tokens:
            for result in bench.run(tokens, arguments.rounds if tokens < 64 else max(3, arguments.rounds // 6)):
                print(_row(result), flush=True)
                results.append(result)
        bench.close()
    if arguments.json:
        document = {
            "command": " ".join(["python", *sys.argv]),
            "machine": asdict(machine),
            "onnxruntime": onnxruntime.__version__,
            "results": [asdict(result) for result in results],
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


def _row(result: Result) -> str:
    bandwidth = f"{result.gigabytes_a_second:.1f}" if result.gigabytes_a_second else ""
    share = f"{result.share_of_read:.2f}" if result.share_of_read else ""
    peers = ", ".join(f"{name} {ratio:.2f}" for name, ratio in result.speedup_over.items())
    return (
        f"{result.contender:12} {result.tokens:6} {result.milliseconds:9.3f} {bandwidth:>6} {result.gigaflops:8.0f}"
        f" {share:>8}  {peers}"
    )


class Bench:
    """The contenders' sessions, open on one file of weights each."""

    def __init__(self, library: Path, threads: int, layers: int, peers: list[str], folder: Path) -> None:
        self._threads = threads
        self._layers = layers
        self._random = np.random.default_rng(0)
        ours = _write_model(folder / "mxfp4", layers, _mxfp4_node, _mxfp4_weights())
        self._sessions = {mode: open_session(ours, threads, library, mode) for mode in MODES}
        for peer in peers:
            model = _write_model(folder / peer, layers, _qmoe_node(PEERS[peer]), _qmoe_weights(PEERS[peer]))
            self._sessions[peer] = open_session(model, threads)
        self._file = (folder / "mxfp4.bin").open("r+b")
        self._mapped = mmap.mmap(self._file.fileno(), 0)
        self._bytes = np.frombuffer(self._mapped, np.uint8)

    def close(self) -> None:
        """Unmap the weights."""
        del self._bytes
        self._mapped.close()
        self._file.close()

    def run(self, tokens: int, rounds: int) -> list[Result]:
        """Run all contenders in turn and return their results."""
        runs = {name: self._runner(session, tokens) for name, session in self._sessions.items()}
        if tokens == 1:
            runs[READ] = self._read
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():  # warm
            run()
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(run() / self._layers)
        return [self._result(name, tokens, times) for name in times]

    def _result(self, name: str, tokens: int, times: dict[str, list[float]]) -> Result:
        seconds = statistics.median(times[name])
        peers = [peer for peer in PEERS if peer in times and name in MODES]
        reads = name == READ or (tokens == 1 and name in MODES)
        return Result(
            name,
            tokens,
            1e3 * seconds,
            TOP_K * EXPERT_BYTES / seconds / 1e9 if reads else None,
            tokens * OPERATIONS_A_TOKEN / seconds / 1e9 if name != READ else 0.0,
            _ratio(times[READ], times[name]) if tokens == 1 and name in MODES else None,
            {peer: _ratio(times[peer], times[name]) for peer in peers},
        )

    def _runner(self, session: onnxruntime.InferenceSession, tokens: int) -> Callable[[], float]:
        binding = session.io_binding()
        hidden = self._random.standard_normal((tokens, HIDDEN), np.float32)
        routers = [np.empty((tokens, EXPERTS), np.float32) for _ in range(self._layers)]
        kept = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in (hidden, *routers)]  # no copies
        for name, value in zip(["hidden", *(f"router{i}" for i in range(self._layers))], kept, strict=True):
            binding.bind_ortvalue_input(name, value)
        for i in range(self._layers):
            output = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((tokens, HIDDEN), np.float32))
            binding.bind_ortvalue_output(f"output{i}", output)

        def run() -> float:
            for router in routers:
                self._random.standard_normal(router.shape, np.float32, out=router)
            start = time.perf_counter()
            session.run_with_iobinding(binding)
            return time.perf_counter() - start

        return run

    def _read(self) -> float:
        """Read what one token needs, each expert from end to end, with the tensors' own places in the file."""
        seconds = 0.0
        for layer in range(self._layers):
            begin = layer * EXPERTS * EXPERT_BYTES
            for expert in self._random.choice(EXPERTS, TOP_K, replace=False):
                at = begin
                for tensor in _mxfp4_weights().values():
                    count = tensor.nbytes // EXPERTS
                    address = self._bytes.ctypes.data + at + int(expert) * count
                    seconds += read_seconds(address, count, self._threads)
                    at += tensor.nbytes
        return seconds


def _ratio(numerators: list[float], denominators: list[float]) -> float:
    return statistics.median(n / d for n, d in zip(numerators, denominators, strict=True))


@dataclass(frozen=True)
class Weight:
    """A tensor of one layer: its element type, its shape, and how its bytes are drawn."""

    element: int
    shape: tuple[int, ...]
    low: int  # of a byte
    high: int  # beyond it

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor; one byte an element."""
        return int(np.prod(self.shape))


def _mxfp4_weights() -> dict[str, Weight]:
    def pair(name: str, outputs: int, inputs: int) -> dict[str, Weight]:
        blocks = (EXPERTS, outputs, inputs // BLOCK)
        return {
            f"{name}_blocks": Weight(TensorProto.UINT8, (*blocks, BLOCK // 2), 0, 256),
            f"{name}_scales": Weight(TensorProto.UINT8, blocks, 118, 120),
        }

    return {**pair("gate_up", 2 * WIDTH, HIDDEN), **pair("down", HIDDEN, WIDTH)}


def _qmoe_weights(bits: int) -> dict[str, Weight]:
    return {
        "gate_up": Weight(TensorProto.UINT8, (EXPERTS, 2 * WIDTH, HIDDEN * bits // 8), 0, 256),
        "down": Weight(TensorProto.UINT8, (EXPERTS, HIDDEN, WIDTH * bits // 8), 0, 256),
    }


def _mxfp4_node(i: int) -> onnx.NodeProto:
    names = ("gate_up_blocks", "gate_up_scales", "gate_up_bias", "down_blocks", "down_scales", "down_bias")
    inputs = ["hidden", f"router{i}", *(name if name.endswith("bias") else f"{name}{i}" for name in names)]
    attributes = {"top_k": TOP_K, "alpha": ALPHA, "limit": LIMIT}
    return helper.make_node("MoEDispatchMXFP4", inputs, [f"output{i}"], domain="ai.gptoss", **attributes)


def _qmoe_node(bits: int) -> Callable[[int], onnx.NodeProto]:
    def node(i: int) -> onnx.NodeProto:
        inputs = ["hidden", f"router{i}", f"gate_up{i}", "gate_up_steps", "gate_up_bias"]
        inputs += [f"down{i}", "down_steps", "down_bias"]
        return helper.make_node(
            "QMoE",
            inputs,
            [f"output{i}"],
            domain="com.microsoft",
            k=TOP_K,
            activation_type="swiglu",
            swiglu_fusion=1,
            activation_alpha=ALPHA,
            activation_beta=1.0,
            swiglu_limit=LIMIT,
            normalize_routing_weights=1,
            expert_weight_bits=bits,
            block_size=BLOCK,
            accuracy_level=4,
        )

    return node


def _write_model(path: Path, layers: int, node: Callable[[int], onnx.NodeProto], weights: dict[str, Weight]) -> Path:
    """Write a graph of `layers` nodes on one input, with random weights of their own in a file beside it."""
    generator = np.random.default_rng(1)
    initializers, offset = [], 0
    with path.with_suffix(".bin").open("wb") as file:
        for i in range(layers):
            for name, weight in weights.items():
                file.write(generator.integers(weight.low, weight.high, weight.nbytes, np.uint8).tobytes())
                tensor = TensorProto(name=f"{name}{i}", data_type=weight.element, dims=weight.shape)
                tensor.data_location = TensorProto.EXTERNAL
                place = {"location": path.with_suffix(".bin").name, "offset": offset, "length": weight.nbytes}
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
                initializers.append(tensor)
                offset += weight.nbytes
    nodes = [node(i) for i in range(layers)]
    used = {name for entry in nodes for name in entry.input}
    constants = {
        "gate_up_bias": np.zeros((EXPERTS, 2 * WIDTH), np.float32),
        "down_bias": np.zeros((EXPERTS, HIDDEN), np.float32),
        "gate_up_steps": np.full((EXPERTS, 2 * WIDTH, HIDDEN // BLOCK), 1e-3, np.float32),
        "down_steps": np.full((EXPERTS, HIDDEN, WIDTH // BLOCK), 1e-3, np.float32),
    }
    initializers += [onnx.numpy_helper.from_array(array, name) for name, array in constants.items() if name in used]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        path.name,
        [value("hidden", TensorProto.FLOAT, ["N", HIDDEN])]
        + [value(f"router{i}", TensorProto.FLOAT, ["N", EXPERTS]) for i in range(layers)],
        [value(f"output{i}", TensorProto.FLOAT, ["N", HIDDEN]) for i in range(layers)],
        initializers,
    )
    imports = [
        helper.make_opsetid(domain, opset) for domain, opset in (("", 24), ("ai.gptoss", 1), ("com.microsoft", 1))
    ]
    model = path.with_suffix(".onnx")
    model.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=11).SerializeToString())
    return model


if __name__ == "__main__":
    main()
