"""How fast `export` computes weights anew, against copying on the same disk.

    python benchmarks/conversion.py experts-mxfp4 FOLDER --layers 4
    python benchmarks/conversion.py lora-experts FOLDER --layers 4
    python benchmarks/conversion.py lora-attention FOLDER
    python benchmarks/conversion.py gguf FOLDER --gguf FILE

Makes a checkpoint of gpt-oss-20b's shapes in FOLDER, and an adapter for it where the kind wants
one. In each round an export runs, and then a loop that reads and writes as many bytes of the same
files, 4 MiB at a time; each without the checkpoint in the file cache and with everything else
written out. What is printed is the loop's time by the export's.
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
AT_ONCE = 4 << 20
SAID = {
    "computing": "while weights are computed",
    "whole": "from start to end",
    "synced": "until the disk has everything",
}


@dataclass(frozen=True)
class Seen:
    """One run.

    Attributes:
        read, written: bytes that came from the disk while weights were computed, and of new files.
        computing: seconds in which weights were computed; of a copy all.
        whole: seconds until it ended.
        synced: seconds until the disk had everything.
        processor: seconds of all threads in `computing`.
        peak: most memory, in bytes; of an export.
    """

    read: int
    written: int
    computing: float
    whole: float
    synced: float
    processor: float
    peak: int = 0


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
    rounds = []
    for _ in range(arguments.rounds):
        exported = export(source, folder, options)
        copied = copy(source, folder, exported.read, exported.written)
        print(f"  export  {line(exported)}\n  copy    {line(copied)}")
        rounds.append((copied, exported))
    for name, what in SAID.items():
        shares = [getattr(copied, name) / getattr(ours, name) for copied, ours in rounds]
        spread = f"{min(shares):.2f} to {max(shares):.2f}"
        print(f"{statistics.median(shares):.2f} of copying's speed {what} ({spread})")


def line(seen: Seen) -> str:
    """Return one run in words."""
    peak = f", {seen.peak / 1e6:.0f} MB of memory" if seen.peak else ""
    return (
        f"{seen.read / 1e9:.2f} GB read, {seen.written / 1e9:.2f} written in {seen.computing:.1f} "
        f"of {seen.whole:.1f} s, {seen.synced:.1f} s to the disk, {seen.processor:.1f} s of "
        f"processor{peak}"
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


def export(source: Path, folder: Path, options: list[str]) -> Seen:
    """Export, and ask the run what it took while weights were computed."""
    output, told = folder / "package", folder / "told.json"
    words = [sys.executable, str(Path(__file__).with_name("conversion_worker.py"))]
    forget(source)
    began = time.perf_counter()
    subprocess.run([*words, str(told), str(source), str(output), *options], check=True)
    whole = time.perf_counter() - began
    os.sync()
    synced = time.perf_counter() - began
    files = [path.stat() for path in output.glob("*.safetensors")]
    written = sum(file.st_size for file in files if file.st_nlink == 1)
    shutil.rmtree(output)
    found = json.loads(told.read_text())
    taken = found["computing"], whole, synced, found["processor"], found["peak"]
    return Seen(found["read"], written, *taken)


def copy(source: Path, folder: Path, read: int, written: int) -> Seen:
    """Read so many bytes of the checkpoint, and write so many, in turns."""
    target, buffer = folder / "copy", memoryview(bytearray(AT_ONCE))
    forget(source)
    began, processor = time.perf_counter(), time.process_time()
    taken = given = 0
    with target.open("xb", buffering=0) as out:
        for file in descriptors(weight_files(source)):
            while taken < read and (count := os.readv(file, [buffer[: read - taken]])):
                taken += count
                while given < written * taken // read:
                    given += out.write(buffer[: written * taken // read - given])
    whole, processor = time.perf_counter() - began, time.process_time() - processor
    os.sync()
    synced = time.perf_counter() - began
    target.unlink()
    return Seen(taken, given, whole, whole, synced, processor)


def forget(source: Path) -> None:
    """Take the checkpoint out of the file cache, and let the disk end what it has to write."""
    os.sync()
    for file in descriptors(weight_files(source)):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def descriptors(paths: list[Path]) -> Iterator[int]:
    """Yield each file, open for reading."""
    for path in paths:
        with path.open("rb") as file:
            yield file.fileno()


if __name__ == "__main__":
    main()
