"""Time all of gpt-oss-20b, with random weights, in our sessions and in llama.cpp: decode, prefill,
a long context.

    bash benchmarks/peers.sh
    python benchmarks/whole_model.py --folder build/whole --layers 12
    python benchmarks/whole_model.py --folder build/whole --layers 24 --rounds 3 --alternate

Prepares in --folder, once, a checkpoint, its packages (weights as they are, and `--dense int8`,
both with a 16-bit cache; target ort, which stock ONNX Runtime runs on the checkpoint's MXFP4) and a
GGUF file of the same shapes. All contenders are loaded at once and take single steps in turn; 12
layers of all of them fit into 24 GiB. With `--alternate`, which 24 layers need, one process after
the other loads, runs until a step takes no major page fault, and is measured. With `--genai`
onnxruntime-genai runs the package of target ort as well, at its default settings, and two packages
of its own model builder, with the accuracy level that it takes by default and with 4: four layers
are what 24 GiB allow then. Ratios compare what ran in one round, and are medians over rounds.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from results import write_document
from whole_model_contenders import Contender, contenders_in, new_bytes, prepare
from whole_model_times import PREFILL, Times, table
from worker import Worker

from gptoss_onnx.bench.machine import measure, read_seconds

PARTS = ("prefill", "decode", "long")
CONTEXT = 8192
READ_BYTES = 1 << 29
# seconds after each measurement: the idle threads of one contender spin for tens of milliseconds
PAUSE = 0.15
FEW_FAULTS = 8  # in a step; beyond, weights are still being read from disk
WARM_STEPS = 5
WARM_ATTEMPTS = 8


def main() -> None:
    """Prepare, measure, print a table, and write the JSON document where it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="where checkpoint, packages and GGUF file lie"
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15, help="decode steps of a round")
    parser.add_argument("--alternate", action="store_true", help="one process after the other")
    parser.add_argument("--genai", action="store_true", help="with onnxruntime-genai")
    parser.add_argument("--only", nargs="+", help="names of contenders")
    parser.add_argument("--prepare", action="store_true", help="write the files, measure nothing")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    contenders = contenders_in(
        arguments.folder, arguments.layers, arguments.threads, arguments.genai
    )
    if arguments.only:
        contenders = [contender for contender in contenders if contender.name in arguments.only]
    for contender in contenders:
        prepare(contender.model, arguments.folder, arguments.layers)
    if arguments.prepare:
        return
    bench = Bench(arguments.threads, arguments.rounds, arguments.steps, arguments.parts)
    times = (bench.alternate if arguments.alternate else bench.interleave)(contenders)
    machine = measure(arguments.threads)
    print(table(times))
    if arguments.json:
        write_document(
            arguments.json,
            machine,
            layers=arguments.layers,
            new_bytes={contender.name: new_bytes(contender.model) for contender in contenders},
            arrangement="alternating processes" if arguments.alternate else "interleaved steps",
            times={name: asdict(entry) for name, entry in times.items()},
        )


class Bench:
    """How the contenders are measured."""

    def __init__(self, threads: int, rounds: int, steps: int, parts: list[str]) -> None:
        self._threads, self._rounds, self._steps, self._parts = threads, rounds, steps, parts
        self._memory = np.ones(READ_BYTES, np.uint8)

    def alternate(self, contenders: list[Contender]) -> dict[str, Times]:
        """Let one process after the other load, warm up and run, round after round."""
        times = {contender.name: Times() for contender in contenders}
        for _ in range(self._rounds):
            for contender in contenders:
                workers = {contender.name: self._start(contender, times[contender.name])}
                self._round(workers, times)
                self._long(workers, times, rounds=1)
                workers[contender.name].close()
        return times

    def interleave(self, contenders: list[Contender]) -> dict[str, Times]:
        """Load all contenders and let them take single steps in turn."""
        times = {contender.name: Times() for contender in contenders}
        workers = {
            contender.name: self._start(contender, times[contender.name])
            for contender in contenders
        }
        for name, worker in workers.items():  # loading the next may have pushed out pages
            self._warm(name, worker)
        for _ in range(self._rounds):
            self._round(workers, times)
        self._long(workers, times, self._rounds)
        for worker in workers.values():
            worker.close()
        return times

    def _start(self, contender: Contender, times: Times) -> Worker:
        worker = contender.start()
        times.opened_in.append(worker.opened_in)
        times.anonymous_at_open.append(worker.anonymous_bytes())
        times.first_token.append(worker.do("prefill", tokens=1)[0])
        self._warm(contender.name, worker)
        return worker

    def _warm(self, name: str, worker: Worker) -> None:
        """Run until steps take no major page faults; a prefill, which needs every expert, brings
        them in at once.
        """
        for attempt in range(1, WARM_ATTEMPTS + 1):
            faults = max(worker.do("step")[1] for _ in range(WARM_STEPS))
            if faults <= FEW_FAULTS:
                return print(
                    f"{name}: warm after {attempt - 1} prefills", file=sys.stderr, flush=True
                )
            worker.do("prefill", tokens=PREFILL)
        print(
            f"{name}: NOT warm: still {faults} major page faults a step",
            file=sys.stderr,
            flush=True,
        )

    def _round(self, workers: dict[str, Worker], times: dict[str, Times]) -> None:
        for name, worker in workers.items():
            if "prefill" in self._parts:
                times[name].prefill.append(self._timed(worker, "prefill", tokens=PREFILL))
            worker.do("prefill", tokens=16)  # a short context, the same for all
        if "decode" in self._parts:
            self._decode(
                workers, lambda name: times[name].decode, lambda name: times[name].read_gb_s
            )
        for name, worker in workers.items():
            times[name].anonymous.append(worker.anonymous_bytes())

    def _long(self, workers: dict[str, Worker], times: dict[str, Times], rounds: int) -> None:
        """Decode at a long context, which is filled once: a peer may take minutes to fill it."""
        if "long" not in self._parts:
            return
        for worker in workers.values():
            worker.do("fill", tokens=CONTEXT)
        for _ in range(rounds):
            self._decode(
                workers, lambda name: times[name].decode_8k, lambda name: times[name].read_gb_s
            )

    def _decode(
        self,
        workers: dict[str, Worker],
        steps_of: Callable[[str], list[float]],
        reads_of: Callable[[str], list[float]],
    ) -> None:
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        reads = []
        for worker in workers.values():
            worker.do("step")
        for _ in range(self._steps):
            for name, worker in workers.items():
                seconds[name].append(self._timed(worker, "step"))
            reads.append(read_seconds(self._memory.ctypes.data, READ_BYTES, self._threads))
        for name in workers:
            steps_of(name).append(statistics.median(seconds[name]))
            reads_of(name).append(READ_BYTES / statistics.median(reads) / 1e9)

    @staticmethod
    def _timed(worker: Worker, name: str, **arguments: int) -> float:
        seconds, _ = worker.do(name, **arguments)
        time.sleep(PAUSE)
        return seconds


if __name__ == "__main__":
    main()
