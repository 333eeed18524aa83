"""Time Linear, LinearPacked and LinearInt8 on the projections of gpt-oss-20b.

Beside them: a plain read, arithmetic peaks and stock ORT.

    python benchmarks/linear.py --threads 2 --json linear.json

Decode: several copies of a projection, each on weights of its own in one memory-mapped file larger
than the caches, alternating with a plain read of the same bytes. Prefill: one projection of 512
tokens, beside the float32 FMA peak. Peers (ORT's Gemm in float32 and MatMulNBits with 8 bits and
accuracy level 4) run interleaved with the kernel. Every figure is a median; shares and speedups are
medians of ratios within one round.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from linear_models import (
    Mapped,
    gemm_node,
    int8_node,
    linear_node,
    nbits_node,
    write_model,
    write_packed_model,
)
from onnx import TensorProto
from results import ratio, write_document
from sessions import open_session

from gptoss_onnx.bench.machine import Machine, measure, read_seconds
from gptoss_onnx.custom_ops.library import library_path

HIDDEN, QUERY, KEY, VOCABULARY = 2880, 4096, 512, 201088
SHAPES = {
    "q": (QUERY, HIDDEN),
    "k, v": (KEY, HIDDEN),
    "o": (HIDDEN, QUERY),
    "lm_head": (VOCABULARY, HIDDEN),
}
PREFILL_SHAPES = ("q", "k, v", "o")
DECODE_TOKENS = (1, 4, 8)
PREFILL_TOKENS = 512
DECODE_BYTES = 384 << 20  # of weights that one decode run reads: several times the last-level cache
PEERS = ("gemm_fp32", "nbits_8bit")
# Weights and activations; 8-bit activations round as bfloat16 ones do where the weights have 16
# bits.
OURS = (
    ("bf16", "exact"),
    ("bf16", "bf16"),
    ("packed", "exact"),
    ("packed", "bf16"),
    ("int8", "exact"),
    ("int8", "bf16"),
    ("int8", "int8"),
)
GEMM_LIMIT = 1 << 30  # Gemm would hold two float32 copies of anything larger


@dataclass(frozen=True)
class Result:
    """One projection: times in milliseconds, and ratios above one where our kernel is the
    faster.
    """

    case: str
    weights: str
    tokens: int
    activations: str
    milliseconds: float
    floor: str  # what `share_of_floor` is a share of
    share_of_floor: float
    speedup_over: dict[str, float]  # peer → its time divided by ours


def main() -> None:
    """Print a table of all cases, and write the JSON document where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument(
        "--library", type=Path, default=library_path(), help="another build of libgptoss_ops.so"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.library is None:
        sys.exit("linear: the native library is not built")
    bench = Bench(arguments.library.resolve(), arguments.threads, arguments.rounds)
    machine = measure(arguments.threads)
    print(json.dumps(asdict(machine), indent=2))
    print(
        f"{'case':10} {'weights':>7} {'tokens':>6} {'mode':>6} {'ms':>9}  share of floor          "
        "speedup over peers"
    )
    results = []
    for result in bench.results(arguments.cases, machine):  # printed as they come
        peers = ", ".join(f"{name} {ratio:.2f}" for name, ratio in result.speedup_over.items())
        floor = f"{result.share_of_floor:.2f} of {result.floor}"
        head = (
            f"{result.case:10} {result.weights:>7} {result.tokens:6} {result.activations:>6} "
            f"{result.milliseconds:9.3f}"
        )
        print(f"{head}  {floor:22}  {peers}")
        results.append(result)
    if arguments.json:
        write_document(arguments.json, machine, results=[asdict(result) for result in results])


@dataclass(frozen=True)
class Bench:
    """How the cases run."""

    library: Path
    threads: int
    rounds: int

    def results(self, cases: list[str], machine: Machine) -> Iterator[Result]:
        """Run the cases one after the other."""
        for case in cases:
            rows, depth = SHAPES[case]
            copies = max(1, DECODE_BYTES // (2 * rows * depth))
            with tempfile.TemporaryDirectory() as folder:
                yield from self._decode(case, rows, depth, copies, Path(folder))
            if case in PREFILL_SHAPES:
                with tempfile.TemporaryDirectory() as folder:
                    yield from self._prefill(case, rows, depth, machine, Path(folder))

    def _decode(
        self, case: str, rows: int, depth: int, copies: int, folder: Path
    ) -> Iterator[Result]:
        sessions = self._sessions(rows, depth, copies, folder)
        files = ("linear.bin", "packed.bin", "int8.bin")
        with ExitStack() as stack:
            bf16, packed, int8 = (stack.enter_context(Mapped(folder / name)) for name in files)
            for tokens in DECODE_TOKENS:
                x = np.random.default_rng(0).standard_normal((tokens, depth), np.float32)
                runs = {name: _runner(session, x) for name, session in sessions.items()}
                runs["read bf16"] = lambda: read_seconds(bf16.address, bf16.size, self.threads)
                runs["read packed"] = lambda: read_seconds(
                    packed.address, packed.size, self.threads
                )
                runs["read int8"] = lambda: read_seconds(int8.address, int8.size, self.threads)
                times = self._interleaved(runs)
                for weights, activations in OURS:
                    name = f"{weights} {activations}"
                    yield Result(
                        case,
                        weights,
                        tokens,
                        activations,
                        1e3 * statistics.median(times[name]) / copies,
                        "plain read",
                        ratio(times[f"read {weights}"], times[name]),
                        {peer: ratio(times[peer], times[name]) for peer in PEERS if peer in times},
                    )

    def _prefill(
        self, case: str, rows: int, depth: int, machine: Machine, folder: Path
    ) -> Iterator[Result]:
        sessions = self._sessions(rows, depth, 1, folder)
        x = np.random.default_rng(0).standard_normal((PREFILL_TOKENS, depth), np.float32)
        times = self._interleaved({name: _runner(session, x) for name, session in sessions.items()})
        floor = 2 * PREFILL_TOKENS * rows * depth / ((machine.fma_gflops or float("nan")) * 1e9)
        for weights, activations in OURS:
            name = f"{weights} {activations}"
            seconds = statistics.median(times[name])
            speedups = {peer: ratio(times[peer], times[name]) for peer in PEERS}
            share = floor / seconds
            yield Result(
                case,
                weights,
                PREFILL_TOKENS,
                activations,
                1e3 * seconds,
                "fp32 FMA peak",
                share,
                speedups,
            )

    def _sessions(
        self, rows: int, depth: int, copies: int, folder: Path
    ) -> dict[str, onnxruntime.InferenceSession]:
        linear = write_model(
            folder, "linear", linear_node, TensorProto.BFLOAT16, rows, depth, copies
        )
        int8 = write_model(folder, "int8", int8_node, TensorProto.INT8, rows, depth, copies)
        packed = write_packed_model(folder, rows, depth, copies)
        models = {"bf16": linear, "packed": packed, "int8": int8}
        sessions = {
            f"{weights} {activations}": open_session(
                models[weights], self.threads, self.library, activations
            )
            for weights, activations in OURS
        }
        nbits = write_model(
            folder, "nbits_8bit", nbits_node, TensorProto.UINT8, rows, depth, copies
        )
        sessions["nbits_8bit"] = open_session(nbits, self.threads)
        if 4 * copies * rows * depth < GEMM_LIMIT:
            gemm = write_model(
                folder, "gemm_fp32", gemm_node, TensorProto.FLOAT, rows, depth, copies
            )
            sessions["gemm_fp32"] = open_session(gemm, self.threads)
        return sessions

    def _interleaved(self, runs: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
        for run in runs.values():  # warm
            run()
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(self.rounds):
            for name, run in runs.items():
                times[name].append(run())
        return times


def _runner(session: onnxruntime.InferenceSession, x: np.ndarray) -> Callable[[], float]:
    """Return a function that runs the session once on bound buffers and returns the seconds it
    took.
    """
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    for output in session.get_outputs():
        y = np.empty((x.shape[0], output.shape[1]), np.float32)
        binding.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_numpy(y))

    def run() -> float:
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        return time.perf_counter() - start

    return run


if __name__ == "__main__":
    main()
