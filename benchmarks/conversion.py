"""How fast `export` computes weights anew, against copying on the same disk.

    python benchmarks/conversion.py experts-mxfp4 FOLDER --layers 4
    python benchmarks/conversion.py lora-experts FOLDER --layers 4
    python benchmarks/conversion.py lora-attention FOLDER
    python benchmarks/conversion.py gguf FOLDER --gguf FILE

Makes a checkpoint of gpt-oss-20b's shapes in FOLDER, and an adapter for it where the kind wants
one. In each round `cp` copies a file of it, and then an export runs, each without the checkpoint in
the file cache and with everything else written out. A rate counts the bytes that are read from the
disk and those that are written.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conversion_adapter import make_adapter

from gptoss_onnx.bench.machine import cpu_name

LAYOUTS = {
    "experts-mxfp4": "hf-bf16",
    "lora-attention": "hf-mxfp4",
    "lora-experts": "hf-mxfp4",
    "gguf": "",
}
MODEL = "gpt-oss-20b"


@dataclass(frozen=True)
class Seen:
    """One run.

    Attributes:
        moved: bytes read from the disk and written.
        seconds: until it ended; `synced` until the disk had everything.
        computing: of these, those in which weights were computed; of a copy all.
        processor: seconds of all threads in these.
        peak: most memory, in bytes; of an export.
    """

    moved: int
    seconds: float
    synced: float
    computing: float
    processor: float
    peak: int = 0

    def rates(self) -> tuple[float, float, float]:
        """Bytes a second: while weights are computed, from start to end, and to the disk."""
        return (
            self.moved / self.computing,
            self.moved / self.seconds,
            self.moved / self.synced,
        )


def main() -> None:
    """Run the rounds and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=LAYOUTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gguf", type=Path, help="the checkpoint of kind gguf")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    source = arguments.gguf or made(arguments.kind, folder, arguments.layers)
    options = ["--experts", "mxfp4"] if arguments.kind == "experts-mxfp4" else []
    if arguments.kind.startswith("lora"):
        part = arguments.kind.removeprefix("lora-")
        options = ["--adapter", str(make_adapter(folder / part, part, arguments.layers))]
    print(f"{cpu_name()}, {os.cpu_count()} processors; {arguments.kind}")
    rounds = [(copy(source, folder), export(source, folder, options))
              for _ in range(arguments.rounds)]  # fmt: skip
    for copied, exported in rounds:
        print(f"  cp      {line(copied)}\n  export  {line(exported)}")
    said = ("while weights are computed", "from start to end", "until the disk has everything")
    for index, what in enumerate(said):
        shares = [ours.rates()[index] / theirs.rates()[index] for theirs, ours in rounds]
        print(f"{statistics.median(shares):.2f} of copying {what} "
              f"({min(shares):.2f} to {max(shares):.2f})")  # fmt: skip


def line(seen: Seen) -> str:
    """Return one run in words."""
    computing, whole, synced = (rate / 1e9 for rate in seen.rates())
    peak = f", {seen.peak / 1e6:.0f} MB of memory" if seen.peak else ""
    return (
        f"{seen.moved / 1e9:6.2f} GB in {seen.computing:5.1f} of {seen.seconds:5.1f} s, "
        f"{seen.synced:5.1f} s to the disk: {computing:.2f}, {whole:.2f}, {synced:.2f} GB/s; "
        f"{seen.processor:.1f} s of processor{peak}"
    )


def made(kind: str, folder: Path, layers: int) -> Path:
    """Return a checkpoint of this kind, made if it is not there."""
    layout = LAYOUTS[kind]
    checkpoint = folder / f"{layout}-{layers}"
    if not checkpoint.exists():
        words = ["make-checkpoint", MODEL, str(checkpoint), "--layers", str(layers)]
        subprocess.run([command(), *words, "--layout", layout], check=True)
    return checkpoint


def command() -> str:
    """Return the command line of the environment that this runs in."""
    return str(Path(sys.executable).with_name("gptoss-onnx"))


def weight_files(source: Path) -> list[Path]:
    """Return the files that hold weights."""
    return sorted(source.glob("*.safetensors")) if source.is_dir() else [source]


def copy(source: Path, folder: Path) -> Seen:
    """Copy the largest file."""
    largest = max(weight_files(source), key=lambda path: path.stat().st_size)
    target = folder / "copy"
    seconds, synced, processor = run(["cp", "--reflink=never", str(largest), str(target)], source)
    target.unlink()
    return Seen(2 * largest.stat().st_size, seconds, synced, seconds, processor)


def export(source: Path, folder: Path, options: list[str]) -> Seen:
    """Export, and ask the run when its stages began."""
    output, told = folder / "package", folder / "told.json"
    words = [sys.executable, str(Path(__file__).with_name("conversion_worker.py"))]
    seconds, synced, _ = run([*words, str(told), str(source), str(output), *options], source)
    written = sum(
        path.stat().st_size for path in output.glob("*.safetensors") if path.stat().st_nlink == 1
    )
    shutil.rmtree(output)
    found = json.loads(told.read_text())
    moved = found["read"] + written
    return Seen(moved, seconds, synced, found["computing"], found["processor"], found["peak"])


def run(words: list[str], source: Path) -> tuple[float, float, float]:
    """Run a process without the checkpoint in the file cache; return the seconds until it ended,
    those until the disk had everything, and those of the processor.
    """
    os.sync()
    for file in descriptors(weight_files(source)):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.perf_counter()
    process = subprocess.Popen(words)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{words[0]}: ended with {process.returncode}")
    os.sync()
    synced = time.perf_counter() - began
    return seconds, synced, usage.ru_utime + usage.ru_stime


def descriptors(paths: list[Path]) -> Iterator[int]:
    """Yield each file, open for reading."""
    for path in paths:
        with path.open("rb") as file:
            yield file.fileno()


if __name__ == "__main__":
    main()
