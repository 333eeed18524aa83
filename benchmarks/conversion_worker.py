"""One export of conversion.py, in a process of its own.

    python benchmarks/conversion_worker.py TOLD SOURCE OUTPUT [--experts mxfp4] [--adapter FOLDER]

Writes into TOLD how long weights were computed and how many bytes came from the disk meanwhile.
"""

import argparse
import json
import time
from pathlib import Path

from gptoss_onnx.exporter import export
from gptoss_onnx.progress import Unit


class Stages:
    """A Progress that notes when stages begin, and what the disk had given until then."""

    def __init__(self) -> None:
        self._began: list[tuple[str, float, int, int]] = []

    def begin(self, stage: str, total: int | None = None, unit: Unit = "bytes") -> None:
        """Note it."""
        counted = (total or 0) if unit == "bytes" else 0
        self._began.append((stage, time.perf_counter(), bytes_read(), counted))

    def advance(self, count: int) -> None:
        """Do nothing."""

    def longest(self) -> tuple[float, int]:
        """Return the seconds of the stages that compute weights, and the bytes read in them."""
        self.begin("end")
        steps = zip(self._began, self._began[1:], strict=False)
        found = [
            (until - since, after - before)
            for (stage, since, before, total), (_, until, after, _) in steps
            if total and not stage.startswith("checking")
        ]
        return sum(seconds for seconds, _ in found), sum(count for _, count in found)


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
    computing, read = stages.longest()
    arguments.told.write_text(json.dumps({"computing": computing, "read": read}))


if __name__ == "__main__":
    main()
