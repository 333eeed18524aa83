"""What the sections of the benchmarks' page are made of."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from processors import short_name

PEER = "llama.cpp"


def section(title: str, document: dict[str, Any], table: str) -> str:
    """Return a section: its title with the processor, how it was measured, and a table."""
    machine = document["machine"]
    peaks = (
        f"reads {machine['read_gb_s']:.1f} GB/s, float32 FMA {machine['fma_gflops']:.0f} GFLOP/s"
    )
    old = " (too high)" if "lowered_to" not in document and "AMD" in machine["cpu"] else ""
    where = f"{machine['cpu']}, {machine['threads']} threads; it {peaks}{old}. "
    where += f"ONNX Runtime {document.get('onnxruntime', '1.31.1')}. `{document['command']}`"
    level = document.get("lowered_to")
    named = short_name(machine["cpu"]) + (f" lowered to {level}" if level else "")
    return f"{title}, {named}\n\n{where}\n\n{table}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def seconds(values: Sequence[float], digits: int) -> str:
    """Return the median of times."""
    return f"{statistics.median(values):.{digits}f}"


def ratio(peer: Sequence[float], ours: Sequence[float]) -> str:
    """Return how many times faster ours is, the median over rounds."""
    return f"{statistics.median(p / o for p, o in zip(peer, ours, strict=True)):.2f}"


def optional(value: float | None, form: str) -> str:
    """Return a number in this form, or nothing where there is none."""
    return "" if value is None else format(value, form)
