"""Time all of gpt-oss-20b, with random weights, in our sessions and in llama.cpp: decode, prefill,
a long context.

    bash benchmarks/peers.sh
    python benchmarks/whole_model.py --folder build/whole --layers 12
    python benchmarks/whole_model.py --folder build/whole --layers 24 --rounds 3 --alternate

Prepares in --folder, once, a checkpoint, its packages (weights as they are, and `--dense int8`;
both with a 16-bit cache) and a GGUF file of the same shapes. All contenders are loaded at once and
take single steps in turn; 12 layers of all of them fit into 24 GiB. With `--alternate`, which 24
layers need, one process after the other loads, runs until a step takes no major page fault, and is
measured. With
`--genai` onnxruntime-genai runs a package of target ort as well, whose weights take twice the
memory and are copied when it is opened: four layers are what 24 GiB allow then. Ratios compare what
ran in one round, and are medians over rounds.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from results import write_document
from whole_model_times import PEER, PREFILL, Contender, Times, table
from worker import Worker

from gptoss_onnx.bench.machine import measure, read_seconds

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / "build" / "peers"
PARTS = ("prefill", "decode", "long")
CONTEXT = 8192
READ_BYTES = 1 << 29
# seconds after each measurement: the idle threads of one contender spin for tens of milliseconds
PAUSE = 0.15
CACHE_DTYPE = "bfloat16"
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
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prepare(arguments.folder, arguments.layers, arguments.genai)
    contenders = contenders_in(
        arguments.folder, arguments.layers, arguments.threads, arguments.genai
    )
    if arguments.only:
        contenders = [contender for contender in contenders if contender.name in arguments.only]
    bench = Bench(arguments.threads, arguments.rounds, arguments.steps, arguments.parts)
    times = (bench.alternate if arguments.alternate else bench.interleave)(contenders)
    machine = measure(arguments.threads)
    print(table(times))
    if arguments.json:
        write_document(
            arguments.json,
            machine,
            layers=arguments.layers,
            arrangement="alternating processes" if arguments.alternate else "interleaved steps",
            times={name: asdict(entry) for name, entry in times.items()},
        )


def prepare(folder: Path, layers: int, genai: bool) -> None:
    """Write the checkpoint, the packages and the GGUF file that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    tool = [str(Path(sys.executable).with_name("gptoss-onnx"))]
    checkpoint = folder / f"checkpoint-{layers}"
    if not checkpoint.exists():
        subprocess.run(
            [*tool, "make-checkpoint", "20b", str(checkpoint), "--layers", str(layers)], check=True
        )
    packages = {
        dense: ["--dense", dense, "--kv-dtype", CACHE_DTYPE] for dense in ("checkpoint", "int8")
    }
    if genai:
        packages["ort"] = ["--target", "ort"]
    for kind, options in packages.items():
        package = package_of(folder, layers, kind)
        if not package.exists():
            subprocess.run(
                [*tool, "export", str(checkpoint), "--output", str(package), *options], check=True
            )
    gguf = folder / f"model-{layers}.gguf"
    if not gguf.exists():
        script = [str(PEERS / "venv" / "bin" / "python"), str(HERE / "random_gguf.py")]
        partial = gguf.with_suffix(".partial")
        subprocess.run([*script, str(partial), "--layers", str(layers)], check=True)
        partial.rename(gguf)


def package_of(folder: Path, layers: int, kind: str) -> Path:
    """Return where the package with these dense weights, or of target ort, lies."""
    return folder / f"package-{layers}-{kind}"


def contenders_in(folder: Path, layers: int, threads: int, genai: bool) -> list[Contender]:
    """List what is compared: llama.cpp first."""
    python = str(PEERS / "venv" / "bin" / "python")
    llama = (python, str(HERE / "llama_worker.py"))
    environment = {
        "LLAMA_CPP_LIB_PATH": str(PEERS / "llama.cpp" / "bin"),
        "PYTHONPATH": str(PEERS / "bindings"),
    }
    found = [
        Contender(PEER, (*llama, str(folder / f"model-{layers}.gguf"), str(threads)), environment)
    ]
    if genai:
        command = (
            python,
            str(HERE / "genai_worker.py"),
            str(package_of(folder, layers, "ort")),
            str(threads),
        )
        found.append(Contender("onnxruntime-genai", command))
    for dense, label in (("checkpoint", "bf16 dense"), ("int8", "int8 dense")):
        for activations in ("exact", "bf16", "int8"):
            package = str(package_of(folder, layers, dense))
            command = (
                sys.executable,
                str(HERE / "gptoss_worker.py"),
                package,
                activations,
                str(threads),
            )
            found.append(Contender(f"{label}, {activations}", command))
    return found


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
