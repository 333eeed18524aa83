"""Run the cases with native kernels in a process of one CPU level: reads a job in JSON from stdin,
writes a report in JSON to stdout.

`levels.py` starts it, for a package and a checkpoint that have been held to each other before.
"""

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gptoss_onnx.custom_ops.library import library_info
from gptoss_onnx.errors import GptOssError, RuntimeUnavailable
from gptoss_onnx.json_text import dump_json, printable
from gptoss_onnx.progress import LoggedProgress
from gptoss_onnx.runtime import open_package
from gptoss_onnx.validation.cases.sizes import Sizes
from gptoss_onnx.validation.columns.session import Judged, session_columns
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import limits_for
from gptoss_onnx.validation.pair import open_reference, reference_model
from gptoss_onnx.validation.report.document import Column, Report


def main() -> int:
    """Run the job, and say what is wrong in one line on stderr."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to stderr
    try:
        found = run(json.load(sys.stdin))
    except GptOssError as error:
        print(printable(str(error)), file=sys.stderr)  # noqa: T201 - where the parent looks for it
        return 1
    with answer:
        answer.write(dump_json(found.to_json()).encode())
    return 0


def run(job: dict[str, Any]) -> Report:
    """Return a report of one column: the native kernels at this process's level."""
    torch.set_num_threads(job["threads"])
    suite, activations, seed = job["suite"], job["activations"], job["seed"]
    report = Report(job["package"], job["reference"], suite, seed, {}, {})
    package = open_package(Path(job["package"]))
    try:
        machine = {"cpu level": library_info().cpu_level}
        (column,) = session_columns(package, "native", activations)
    except RuntimeUnavailable as error:  # the processor lacks the level
        missing = Column("native", "", "native", activations, "cpu", None, "", str(error))
        return replace(report, columns=(missing,))
    progress = LoggedProgress(logging.getLogger(__name__))
    with open_reference(package, job["reference"], job["adapters"]) as checkpoint:
        near = limits_for(package.manifest, activations).near
        model = reference_model(package, checkpoint)
        expected = Expected(model, seed, near, column.products)
        sizes = Sizes.of(checkpoint.config.windows, checkpoint.config.longest)
        tokens = expected.tokens(sizes.length)
        column = column.limited(package.manifest, expected, tokens)
        judged = Judged(package, checkpoint, expected, suite, activations, progress)
        found = list(column.run(judged))
        checkpoint.check_unchanged()
    rows, cells = zip(*found, strict=True)
    return replace(report, machine=machine, columns=(column.column,), rows=rows, cells=cells)


if __name__ == "__main__":
    sys.exit(main())
