"""Measure what this machine can do: read bandwidth and arithmetic peaks, beside the benchmark that is judged by them.

    python benchmarks/machine.py --threads 2

The measuring loops are compiled for the machine on first use (machine.cc, needs a C++ compiler).
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

_SOURCE = Path(__file__).with_name("machine.cc")
_READ_BYTES = 1 << 30  # well beyond any cache
_STEPS = 4_000_000  # tens of milliseconds
_CHAINS = 10  # as in machine.cc
_ROUNDS = 5


@dataclass(frozen=True)
class Machine:
    """The machine and what it can do with `threads` threads; a peak is None where it lacks the instruction."""

    cpu: str
    cores: int
    threads: int
    system: str
    onnxruntime: str
    read_gb_s: float  # median of plain reads of 1 GiB of anonymous memory
    fma_gflops: float | None  # float32 fused multiply-add
    bf16_gflops: float | None  # AVX-512 dot products of bfloat16
    int8_gops: float | None  # AVX-512 VNNI dot products


def measure(threads: int) -> Machine:
    """Return the machine's description with freshly measured figures."""
    memory = np.ones(_READ_BYTES, np.uint8)
    address = memory.ctypes.data
    seconds = statistics.median(read_seconds(address, _READ_BYTES, threads) for _ in range(_ROUNDS))
    return Machine(
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        threads=threads,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        onnxruntime=version("onnxruntime"),
        read_gb_s=_READ_BYTES / seconds / 1e9,
        fma_gflops=_peak("machine_fma", threads),
        bf16_gflops=_peak("machine_bf16", threads),
        int8_gops=_peak("machine_int8", threads),
    )


def read_seconds(address: int, count: int, threads: int) -> float:
    """Read `count` bytes at `address` once with `threads` threads and return the seconds it took."""
    seconds: float = _loops().machine_read(ctypes.c_void_p(address), ctypes.c_size_t(count), threads)
    return seconds


def _peak(function: str, threads: int) -> float | None:
    lanes = ctypes.c_int()
    run = getattr(_loops(), function)
    seconds = [run(ctypes.c_uint64(_STEPS), threads, ctypes.byref(lanes)) for _ in range(_ROUNDS)]
    if lanes.value == 0:
        return None
    return 2 * lanes.value * _CHAINS * _STEPS * threads / min(seconds) / 1e9


@cache
def _loops() -> ctypes.CDLL:
    """Compile and load the measuring loops; the build folder goes away at once, the loaded library stays."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "machine.so"
        compiler = os.environ.get("CXX", "c++")
        flags = ["-O3", "-std=c++17", "-march=native", "-Wno-psabi", "-shared", "-fPIC", "-pthread"]
        subprocess.run([compiler, *flags, str(_SOURCE), "-o", str(library)], check=True)
        loops = ctypes.CDLL(str(library))
    for name in ("machine_read", "machine_fma", "machine_bf16", "machine_int8"):
        getattr(loops, name).restype = ctypes.c_double
    return loops


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    print(json.dumps(asdict(measure(parser.parse_args().threads)), indent=2))
