"""Time decode and prefill at contexts of growing length, with every cache type, beside llama.cpp.

    bash benchmarks/peers.sh
    python benchmarks/contexts.py --folder build/whole --layers 4 --json contexts.json

Shapes of gpt-oss-20b, random weights: half of the layers see a window of 128 tokens, half see all.
One process after the other is brought to each context; then 512 tokens are run in one call, and
single tokens. Ours claims the tokens of a context without computing them: what the cache holds
makes no difference to the time. llama.cpp computes them, and is left out beyond `--peer-most`
tokens. Times are medians over steps; a plain read of memory between the contenders says how fast
the machine was.
"""

import argparse
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from results import write_document
from whole_model_contenders import HERE, PEER, Contender, contenders_in, export_once, prepare

from gptoss_onnx.bench.machine import measure

CHUNK, STEPS = 512, 12
CACHES = ("bfloat16", "float16", "float32")
ROOM = CHUNK + 2 * STEPS + 64


@dataclass(frozen=True)
class Point:
    """What one contender took at one context, in seconds: a call of 512 tokens, and a token."""

    contender: str
    context: int
    prefill: float
    decode: float


def main() -> None:
    """Measure all, print one line a contender and context, and write the JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="as whole_model.py has it")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contexts", type=int, nargs="+", default=[0, 2048, 8192, 32768])
    parser.add_argument("--activations", nargs="+", default=["exact", "bf16"])
    parser.add_argument("--peer-most", type=int, default=8192, help="llama.cpp's longest context")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    capacity = max(arguments.contexts) + ROOM
    points = []
    for contender in _contenders(arguments, capacity):
        most = arguments.peer_most if contender.name == PEER else capacity
        contexts = [context for context in sorted(arguments.contexts) if context <= most]
        points += _curve(contender, contexts)
    machine = measure(arguments.threads)
    for point in points:
        print(
            f"{point.contender:32} {point.context:6}  {CHUNK} tokens {point.prefill * 1e3:8.1f} ms"
            f"  one token {point.decode * 1e3:7.2f} ms"
        )
    if arguments.json:
        write_document(
            arguments.json,
            machine,
            layers=arguments.layers,
            points=[asdict(point) for point in points],
        )


def _contenders(arguments: argparse.Namespace, capacity: int) -> list[Contender]:
    folder, layers, threads = arguments.folder, arguments.layers, arguments.threads
    peer = next(c for c in contenders_in(folder, layers, threads, False) if c.name == PEER)
    prepare(peer.model, folder, layers)
    found = [Contender(PEER, peer.model, (*peer.command, str(capacity)), peer.environment)]
    for kv_dtype in CACHES:
        package = folder / f"package-{layers}-{kv_dtype}"
        export_once(folder / f"checkpoint-{layers}", package, "--kv-dtype", kv_dtype)
        for activations in arguments.activations:
            words = (str(HERE / "gptoss_worker.py"), str(package), activations, str(threads))
            command = (sys.executable, *words, str(capacity))
            found.append(Contender(f"{kv_dtype} cache, {activations}", package, command))
    return found


def _curve(contender: Contender, contexts: list[int]) -> list[Point]:
    worker = contender.start()
    worker.do("prefill", tokens=CHUNK)  # every expert is in memory now
    points = []
    for context in contexts:
        worker.do("prefill", tokens=1)
        if context > 1:
            worker.do("fill", tokens=context)
        worker.do("step")
        steps = [worker.do("step")[0] for _ in range(STEPS)]
        chunk = worker.do("extend", tokens=CHUNK)[0]
        points.append(Point(contender.name, context, chunk, statistics.median(steps)))
        print(f"{contender.name}: {context}", file=sys.stderr, flush=True)
    worker.close()
    return points


if __name__ == "__main__":
    main()
