"""Time MoEDispatchMXFP4 on layers of gpt-oss-20b, beside a plain read of as many of its bytes,
llama.cpp and QMoE.

    bash benchmarks/peers.sh
    python benchmarks/moe.py --threads 2 --json moe.json

Random weights of several layers lie in one memory-mapped file, an order of magnitude beyond the
caches. Decode: every run sends its tokens to other experts of every layer, and alternates with a
plain read of other experts' bytes. Prefill: 512 tokens through one layer after the other. The peers
run interleaved: ggml on the same weights, as llama.cpp stores them and as it repacks them (its
default), stock ONNX Runtime's QMoE on the same bytes (fp4), on weights requantised to 4 bits and on
the same weights in 8 bits, both at accuracy level 4, and transformers' eager experts in bfloat16.
Times are medians for one layer; shares and speedups are medians of ratios within one round. `error`
is the root mean square difference from mode exact, relative to its output.
"""

import argparse
import json
import mmap
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import ggml_layer
import numpy as np
from moe_contenders import Contender, Floats, Inputs, of_ggml, of_session, of_transformers
from moe_models import (
    EXPERT_BYTES,
    EXPERTS,
    HIDDEN,
    TOP_K,
    WIDTH,
    expert_ranges,
    ggml_experts,
    mxfp4_model,
    qmoe_fp4_model,
    qmoe_model,
    transformers_experts,
    write_model,
)
from results import ratio, write_document
from sessions import open_session

from gptoss_onnx.bench.machine import measure, read_seconds
from gptoss_onnx.custom_ops.library import library_path

MODES = ("exact", "bf16", "int8")
QMOE_BITS = {"qmoe_int4": 4, "qmoe_int8": 8}
LLAMA_REPACKS = {"llama.cpp": True, "llama.cpp as stored": False}
STOCK = "stock ONNX Runtime 1.32 fp4"
TRANSFORMERS = "transformers bf16"
PEERS = (*LLAMA_REPACKS, STOCK, *QMOE_BITS, TRANSFORMERS)
READ = "read"
OPERATIONS_A_TOKEN = 2 * 3 * HIDDEN * WIDTH * TOP_K
# seconds after each run: idle threads of one contender stop spinning before the next one runs
PAUSE = 0.02


@dataclass(frozen=True)
class Result:
    """One contender at one number of tokens; ratios are above one where it is faster than what it
    is compared with.
    """

    contender: str
    tokens: int
    milliseconds: float  # of one layer
    gigabytes_a_second: float | None  # of weights, while decoding one token
    gigaflops: float
    share_of_read: float | None
    error: float | None  # root mean square, relative to mode exact
    speedup_over: dict[str, float]  # peer → its time divided by this one's


def main() -> None:
    """Print a table, and write the JSON document where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 4, 8, 512])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument(
        "--library", type=Path, default=library_path(), help="another build of libgptoss_ops.so"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.library is None:
        sys.exit("moe: the native library is not built")
    if set(LLAMA_REPACKS) & set(arguments.peers) and not ggml_layer.is_built():
        sys.exit(
            "moe: llama.cpp is not built: run benchmarks/peers.sh, or leave it out with --peers"
        )
    machine = measure(arguments.threads)
    print(json.dumps(asdict(machine), indent=2))
    print(
        f"{'contender':28} {'tokens':>6} {'ms/layer':>9} {'GB/s':>6} {'GFLOP/s':>8} {'of read':>8} "
        f"{'error':>8}"
        "  speedup over peers"
    )
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            arguments.library.resolve(),
            arguments.threads,
            arguments.layers,
            arguments.peers,
            Path(folder),
        )
        for tokens in arguments.tokens:
            for result in bench.run(
                tokens, arguments.rounds if tokens < 64 else max(3, arguments.rounds // 6)
            ):
                print(_row(result), flush=True)
                results.append(result)
        bench.close()
    if arguments.json:
        write_document(arguments.json, machine, results=[asdict(result) for result in results])


def _row(result: Result) -> str:
    bandwidth = f"{result.gigabytes_a_second:.1f}" if result.gigabytes_a_second else ""
    share = f"{result.share_of_read:.2f}" if result.share_of_read else ""
    error = f"{result.error:.1e}" if result.error is not None else ""
    peers = ", ".join(f"{name} {ratio:.2f}" for name, ratio in result.speedup_over.items())
    return (
        f"{result.contender:28} {result.tokens:6} {result.milliseconds:9.3f} {bandwidth:>6} "
        f"{result.gigaflops:8.0f}"
        f" {share:>8} {error:>8}  {peers}"
    )


class Bench:
    """The contenders, each with its weights."""

    def __init__(
        self, library: Path, threads: int, layers: int, peers: list[str], folder: Path
    ) -> None:
        self._threads = threads
        self._layers = layers
        self._random = np.random.default_rng(0)
        ours = write_model(folder / "mxfp4", layers, mxfp4_model())
        self._sessions = {mode: open_session(ours, threads, library, mode) for mode in MODES}
        models = {STOCK: qmoe_fp4_model()}
        models |= {peer: qmoe_model(bits) for peer, bits in QMOE_BITS.items()}
        for number, (peer, model) in enumerate(models.items()):
            if peer in peers:
                path = write_model(folder / f"peer{number}", layers, model)
                self._sessions[peer] = open_session(path, threads)
        self._ggml = {
            peer: ggml_experts(layers, threads, repack)
            for peer, repack in LLAMA_REPACKS.items()
            if peer in peers
        }
        self._transformers = (
            transformers_experts(layers, threads) if TRANSFORMERS in peers else None
        )
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
        hidden = self._random.standard_normal((tokens, HIDDEN), np.float32)
        inputs = Inputs(
            hidden, [np.empty((tokens, EXPERTS), np.float32) for _ in range(self._layers)]
        )
        contenders = {name: of_session(session, inputs) for name, session in self._sessions.items()}
        contenders |= {name: of_ggml(experts, inputs) for name, experts in self._ggml.items()}
        if self._transformers is not None:
            contenders[TRANSFORMERS] = of_transformers(self._transformers, inputs)
        errors = self._errors(contenders, inputs)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        if tokens == 1:
            times[READ] = []
        for _ in range(rounds):
            for name, contender in contenders.items():
                times[name].append(self._timed(contender, inputs) / self._layers)
            if tokens == 1:
                times[READ].append(self._read() / self._layers)
        return [self._result(name, tokens, times, errors) for name in times]

    def _errors(self, contenders: dict[str, Contender], inputs: Inputs) -> dict[str, float]:
        """Run each contender once, on the same inputs, and compare the outputs."""
        self._draw(inputs)
        outputs = {}
        for name, contender in contenders.items():
            contender.run()
            outputs[name] = contender.output().copy()
        exact = outputs["exact"]
        return {
            name: _rms(output - exact) / _rms(exact)
            for name, output in outputs.items()
            if name != "exact"
        }

    def _timed(self, contender: Contender, inputs: Inputs) -> float:
        self._draw(inputs)
        start = time.perf_counter()
        contender.run()
        seconds = time.perf_counter() - start
        time.sleep(PAUSE)
        return seconds

    def _draw(self, inputs: Inputs) -> None:
        for router in inputs.routers:
            self._random.standard_normal(router.shape, np.float32, out=router)

    def _read(self) -> float:
        """Read what one token needs, each expert from end to end, with the tensors' own places in
        the file.
        """
        seconds = 0.0
        for layer in range(self._layers):
            start = self._bytes.ctypes.data + layer * EXPERTS * EXPERT_BYTES
            for expert in self._random.choice(EXPERTS, TOP_K, replace=False):
                for offset, count in expert_ranges():
                    seconds += read_seconds(
                        start + offset + int(expert) * count, count, self._threads
                    )
        return seconds

    def _result(
        self, name: str, tokens: int, times: dict[str, list[float]], errors: dict[str, float]
    ) -> Result:
        seconds = statistics.median(times[name])
        reads = name == READ or (tokens == 1 and name in (*MODES, *LLAMA_REPACKS, STOCK))
        return Result(
            name,
            tokens,
            1e3 * seconds,
            TOP_K * EXPERT_BYTES / seconds / 1e9 if reads else None,
            tokens * OPERATIONS_A_TOKEN / seconds / 1e9 if name != READ else 0.0,
            ratio(times[READ], times[name]) if tokens == 1 and reads and name != READ else None,
            errors.get(name),
            {
                peer: ratio(times[peer], times[name])
                for peer in PEERS
                if peer in times and name in MODES
            },
        )


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


if __name__ == "__main__":
    main()
