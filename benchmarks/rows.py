"""Time the decoding of several rows together: tokens a second of 1 to 16 rows, all of gpt-oss-20b.

    python benchmarks/rows.py --folder build/whole --layers 24 --json rows.json

One session, one cache for each number of rows; calls of all of them take turns. Tokens are random,
so that rows choose experts independently: of E experts, k a token, n rows choose E·(1 − (1 −
k/E)ⁿ) on average, which bounds what they share. `bound` is the factor that reading each chosen
expert once, and everything else once, would allow.
"""

import argparse
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from results import write_document
from whole_model_contenders import EXPORTS, export_once

from gptoss_onnx.bench.machine import measure
from gptoss_onnx.runtime import Session

CAPACITY, EXPERTS, TAKEN = 256, 32, 4
# Bytes of gpt-oss-20b that a token reads: of one expert, of all else in a layer, of lm_head.
EXPERT = 3 * 2880 * 2880 * 17 // 32
LAYER = 2 * (2 * 4096 * 2880 + 2 * 512 * 2880)
HEAD = 2 * 201088 * 2880


@dataclass(frozen=True)
class Point:
    """Seconds of one call, a median over the calls, and what is expected of the rows' experts."""

    activations: str
    rows: int
    seconds: float
    speedup: float
    experts: float
    bound: float


def main() -> None:
    """Measure all, print one line each, and write the JSON document where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="as whole_model.py has it")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--activations", nargs="+", default=["exact", "bf16", "int8"])
    parser.add_argument("--dense", choices=("checkpoint", "packed", "int8"), default="checkpoint")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    package = arguments.folder / f"package-{arguments.layers}-{arguments.dense}"
    checkpoint = arguments.folder / f"checkpoint-{arguments.layers}"
    export_once(checkpoint, package, *EXPORTS[arguments.dense])
    points = [
        point
        for activations in arguments.activations
        for point in _points(package, activations, arguments)
    ]
    machine = measure(arguments.threads)
    for point in points:
        print(
            f"{point.activations:6} {point.rows:3} rows {point.seconds * 1e3:8.1f} ms a call, "
            f"{point.rows / point.seconds:6.1f} tokens/s, {point.speedup:.2f} of one row "
            f"(bound {point.bound:.2f}, {point.experts:.1f} experts a layer)"
        )
    if arguments.json:
        document = {"layers": arguments.layers, "dense": arguments.dense}
        write_document(
            arguments.json, machine, **document, points=[asdict(point) for point in points]
        )


def _points(package: Path, activations: str, arguments: argparse.Namespace) -> list[Point]:
    draw = np.random.default_rng(0)
    seconds: dict[int, list[float]] = {rows: [] for rows in arguments.rows}
    with Session.open(
        package, kernels="native", activations=activations, threads=arguments.threads
    ) as session:
        session.score(draw.integers(0, session.vocab, 512).tolist())  # brings all experts in
        caches = {rows: session.new_cache(rows, CAPACITY) for rows in arguments.rows}
        for call in range(arguments.calls + 1):
            for rows, cache in caches.items():
                tokens = draw.integers(0, session.vocab, (rows, 1))
                begin = time.perf_counter()
                session.forward(tokens, cache)
                if call:  # the first one of a cache touches its memory
                    seconds[rows].append(time.perf_counter() - begin)
    one = statistics.median(seconds[1])
    medians = {rows: statistics.median(times) for rows, times in seconds.items()}
    return [
        Point(
            activations,
            rows,
            time_of_call,
            rows * one / time_of_call,
            _experts(rows),
            rows * _bytes(1, arguments.layers) / _bytes(rows, arguments.layers),
        )
        for rows, time_of_call in medians.items()
    ]


def _experts(rows: int) -> float:
    return EXPERTS * float(1 - (1 - TAKEN / EXPERTS) ** rows)


def _bytes(rows: int, layers: int) -> float:
    return layers * (_experts(rows) * EXPERT + LAYER) + HEAD


if __name__ == "__main__":
    main()
