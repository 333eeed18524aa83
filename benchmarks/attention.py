"""Time SinkAttention on the layers of gpt-oss-20b, beside the machine's read bandwidth and stock
ONNX Runtime.

    python benchmarks/attention.py --threads 2 --json attention.json

Decode of one token and prefill of 512, on full layers and on window layers of 128; decode once more
with GLM's rotation of half a head in neighbouring pairs. Kept first tokens and ALiBi are not timed:
the peer has neither. Each model holds
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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from attention_models import (
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    PEER,
    TYPES,
    WINDOW,
    Case,
    Inputs,
    Layers,
    gqa_model,
    sink_model,
)
from results import ratio, write_document
from sessions import open_session

from gptoss_onnx.bench.machine import Machine, measure
from gptoss_onnx.custom_ops.library import library_path

# Largest difference from the peer that still says the same thing was computed, by cache and
# activation mode.
AGREEMENT = {
    "float32 exact": 1e-4,
    "float16 exact": 2e-2,
    "bfloat16 exact": 1e-1,
    "bfloat16 bf16": 1e-1,
}
CASES = (
    Case("decode 1k", 1023, 1, 0),
    Case("decode 8k", 8191, 1, 0),
    Case("decode 8k window", 8191, 1, WINDOW),
    Case("decode 8k half pairs", 8191, 1, 0, HEAD_DIM // 2),
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


if __name__ == "__main__":
    main()
