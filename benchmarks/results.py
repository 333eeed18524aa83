"""What every benchmark does with its times: ratios within a round, and one JSON document of a
run.
"""

import json
import os
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime

from gptoss_onnx.bench.machine import Machine


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median of the ratios of what was timed in one round."""
    return statistics.median(n / d for n, d in zip(numerators, denominators, strict=True))


def write_document(path: Path, machine: Machine, **found: Any) -> None:
    """Write what was found with what a reader needs to repeat it: the command, the machine, the
    version.
    """
    head = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": asdict(machine),
        "onnxruntime": onnxruntime.__version__,
        "lowered_to": os.environ.get("GPTOSS_CPU_LEVEL"),  # the kernels' CPU level, by hand
    }
    path.write_text(json.dumps(head | found, indent=2) + "\n")
