"""The processor that this runs on: its name, and how many of its cores this process may use."""

import os
import platform
from pathlib import Path


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name in the words of the system; `unknown` if it has none.

    Where Linux says them, family and model follow: a virtual machine may call every generation
    `AMD EPYC`.
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found: dict[str, str] = {}  # of the first processor
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()
    name = found.get("model name") or platform.processor() or "unknown"
    if {"cpu family", "model"} <= found.keys():
        return f"{name} (family {found['cpu family']}, model {found['model']})"
    return name
