"""Measure what this machine can do: read bandwidth and arithmetic peaks, which speeds are judged
by.

The measuring loops are in the native library. They take the best instructions of the CPU, whatever
`GPTOSS_CPU_LEVEL` says: a lowered level does not lower what the machine can do.
"""

import ctypes
import os
import platform
import statistics
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from gptoss_onnx.custom_ops.library import library_info
from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.processor import cpu_name

READ_BYTES = 512 << 20  # beyond the caches of most machines
ROUNDS = 5
CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Machine:
    """The machine and what it can do with `threads` threads.

    A peak is None if the machine lacks the instruction.
    Peaks count a multiplication and an addition each as one operation, in units of 10⁹ a second.
    """

    cpu: str
    cores: int
    threads: int
    system: str
    read_gb_s: float  # median of plain reads of anonymous memory, 10⁹ bytes a second
    fma_gflops: float | None  # float32 fused multiply-add of the widest vectors
    bf16_gflops: float | None  # AVX-512 dot products of bfloat16
    int8_gops: float | None  # dot products of bytes: AVX-512 VNNI, or AVX2's pairs and additions
    int16_gops: float | None  # the same of words
    amx_bf16_gflops: float | None  # AMX tiles of bfloat16
    amx_int8_gops: float | None  # AMX tiles of int8


def measure(threads: int) -> Machine:
    """Return the machine's description with freshly measured figures.

    Holds 512 MiB meanwhile. Raises RuntimeUnavailable if the native library is not available.
    """
    return Machine(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        threads=threads,
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        read_gb_s=read_rate(threads),
        fma_gflops=_peak("fma", threads),
        bf16_gflops=_peak("bf16", threads),
        int8_gops=_peak("int8", threads),
        int16_gops=_peak("int16", threads),
        amx_bf16_gflops=_peak("amx_bf16", threads),
        amx_int8_gops=_peak("amx_int8", threads),
    )


def read_seconds(address: int, count: int, threads: int) -> float:
    """Read `count` bytes at `address` once with `threads` threads and return the seconds it took.

    The same loop whatever the memory: the caller decides whether the bytes are anonymous, mapped,
    or in a cache.
    """
    seconds: float = _functions().gptoss_machine_read(
        ctypes.c_void_p(address), ctypes.c_size_t(count), threads
    )
    return _measured(seconds, threads)


def last_level_cache() -> int | None:
    """Return the bytes of the last level of the CPU caches that this process can use, or None if
    Linux does not say.

    Data that fit in there and are read again and again are not bound by the memory's bandwidth.
    """
    sizes: dict[str, int] = {}  # by the cores that share the cache
    for core in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ():
        caches = sorted(
            CPUS.glob(f"cpu{core}/cache/index*"),
            key=lambda path: int(path.name.removeprefix("index")),
        )
        try:
            sizes[(caches[-1] / "shared_cpu_list").read_text()] = _size_of(
                (caches[-1] / "size").read_text()
            )
        except (OSError, ValueError, IndexError):
            return None
    return sum(sizes.values()) or None


def _size_of(text: str) -> int:
    """Return the bytes that `32768K` says."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    text = text.strip()
    return int(text.rstrip("KMG")) * units.get(text[-1:], 1)


def read_rate(threads: int) -> float:
    """Return the median of plain reads of anonymous memory, in 10⁹ bytes a second.

    Holds 512 MiB meanwhile. Raises RuntimeUnavailable if the native library is not available.
    """
    memory = np.ones(READ_BYTES, np.uint8)
    seconds = [read_seconds(memory.ctypes.data, READ_BYTES, threads) for _ in range(ROUNDS)]
    return READ_BYTES / statistics.median(seconds) / 1e9


def _peak(unit: str, threads: int) -> float | None:
    """Return the best of some rounds, because a disturbance only slows this loop."""
    run = _functions().gptoss_machine_compute
    best: float = max(_measured(run(unit.encode(), threads), threads) for _ in range(ROUNDS))
    return best / 1e9 or None


def _measured(value: float, threads: int) -> float:
    if threads < 1:
        raise InputError(f"threads: found {threads}, expected at least 1")
    if value < 0:
        raise RuntimeUnavailable(
            f"threads: the system does not give this process {threads} of them; ask for fewer"
        )
    return value


@cache
def _functions() -> ctypes.CDLL:
    path = library_info().path
    library = ctypes.CDLL(str(path))
    for name in ("gptoss_machine_read", "gptoss_machine_compute"):
        try:
            getattr(library, name).restype = ctypes.c_double
        except AttributeError as error:  # an editable install whose library was not built again
            raise RuntimeUnavailable(
                f"native library: {path} is too old; reinstall gptoss-onnx"
            ) from error
    return library
