"""One export of conversion.py, in a process of its own.

    python benchmarks/conversion_worker.py TOLD SOURCE OUTPUT [--experts mxfp4] [--adapter FOLDER]

Writes into TOLD how long weights were computed, in seconds of the clock and of the processor, how
many bytes came from the disk meanwhile, and the most memory that the process took.
"""

import argparse
import json
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from gptoss_onnx.exporter import export
from gptoss_onnx.progress import Unit


@dataclass(frozen=True)
class Stage:
    """How a stage begins: whether it computes weights, and what the process has taken so far."""

    computes: bool
    clock: float
    processor: float
    read: int


class Stages:
    """A Progress that notes what stages take."""

    def __init__(self) -> None:
        self._began: list[Stage] = []

    def begin(self, stage: str, total: int | None = None, unit: Unit = "bytes") -> None:
        """Note it."""
        computes = bool(total) and unit == "bytes" and not stage.startswith("checking")
        taken = time.perf_counter(), time.process_time(), bytes_read()
        self._began.append(Stage(computes, *taken))

    def advance(self, count: int) -> None:
        """Do nothing."""

    def computing(self) -> dict[str, float]:
        """Return what the stages took that computed weights."""
        self.begin("end")
        steps = zip(self._began, self._began[1:], strict=False)
        found = [(stage, after) for stage, after in steps if stage.computes]
        return {
            "computing": sum(after.clock - stage.clock for stage, after in found),
            "processor": sum(after.processor - stage.processor for stage, after in found),
            "read": sum(after.read - stage.read for stage, after in found),
        }


def bytes_read() -> int:
    """Return how many bytes this process has made the disk read."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def main() -> None:
    """Export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("told", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--experts", default="checkpoint")
    parser.add_argument("--adapter", type=Path)
    arguments = parser.parse_args()
    stages = Stages()
    adapters = [arguments.adapter] if arguments.adapter else []
    export(
        arguments.source,
        arguments.output,
        experts=arguments.experts,
        adapters=adapters,
        progress=stages,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    arguments.told.write_text(json.dumps({**stages.computing(), "peak": peak}))


if __name__ == "__main__":
    main()
