"""How today's exporters fare: each exports three checkpoints, and `validate` judges the results.

    bash benchmarks/exporters_venvs.sh
    python benchmarks/exporters.py docs/exporters.md

Writes the tables of the page, and all that was found beside it as JSON. An exporter that fails, or
whose environment is missing, has its last word in the tables. About fifteen minutes on two cores.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporters_page import write_page
from exporters_ways import WAYS, Way

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import Report, validate

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "exporters"
DEMO = ROOT / "demo" / "checkpoint"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
COLOURS = re.compile("\x1b\\[[0-9;]*m")
LIMIT = 1800  # seconds that one export may take
# Cheap to run past 4096 tokens, and of the demo's vocabulary, whose tokenizer some exporters need.
SMALL = {"vocab_size": 2048, "num_hidden_layers": 2, "max_position_embeddings": 8192}
YARN = {
    "rope_type": "yarn",
    "factor": 2.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 4096,
    "truncate": False,
}


@dataclass(frozen=True)
class Result:
    """What came of one exporter and one checkpoint; `seconds` are CPU seconds of the export."""

    checkpoint: str
    way: str
    version: str
    seconds: float
    nbytes: int
    error: str
    report: dict[str, Any] | None


def main() -> None:
    """Run the ways on the checkpoints and write the page after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--only", nargs="*", help="exporters; what is known of the others stays")
    parser.add_argument("--on", nargs="*", help="checkpoints, likewise")
    arguments = parser.parse_args()
    document = arguments.page.with_suffix(".json")
    known = json.loads(document.read_text(encoding="utf-8")) if document.exists() else []
    found = {(entry["checkpoint"], entry["way"]): entry for entry in known}
    for name, checkpoint in checkpoints().items():
        for way in WAYS:
            if way.name in (arguments.only or [way.name]) and name in (arguments.on or [name]):
                found[name, way.name] = asdict(run(way, name, checkpoint))
                results = [entry for _, entry in sorted(found.items())]
                document.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                write_page(arguments.page, results)


def checkpoints() -> dict[str, Path]:
    """Return the checkpoints by name; the random ones are written where they are missing."""
    bf16 = tiny_document(**SMALL, rope_scaling=YARN, quantization_config=None)
    yarn = tiny_document(**SMALL, rope_scaling=YARN)
    made = {"demo": DEMO}
    for name, document in (("bf16", bf16), ("yarn", yarn)):
        made[name] = folder = WORK / "checkpoints" / name
        if folder.exists():
            continue
        make_checkpoint(folder, document, seed=7)
        for file in TOKENIZER:
            shutil.copyfile(DEMO / file, folder / file)
    return made


def run(way: Way, name: str, checkpoint: Path) -> Result:
    """Export, judge, and return what was found."""
    output = WORK / "exports" / name / way.name.replace(" ", "-")
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    version, begin = way.version(), children_seconds()
    print(f"{name}: {way.name} {version}", flush=True)
    error = export(way, checkpoint, output)
    seconds = children_seconds() - begin
    if error:
        return Result(name, way.name, version, seconds, 0, error, None)
    suite: Any = "full" if name == "yarn" else "quick"
    nbytes = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    try:
        report: Report | None = validate(output, checkpoint, suite=suite)
        assert report is not None
        print(report.table(), flush=True)
        return Result(name, way.name, version, seconds, nbytes, "", summary(report))
    except GptOssError as problem:
        error = plain(f"not judged: {problem}")
        return Result(name, way.name, version, seconds, nbytes, error, None)


def children_seconds() -> float:
    """Return the CPU seconds of all processes that were started and have ended: other work on the
    machine changes them little.
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def export(way: Way, checkpoint: Path, output: Path) -> str:
    """Run an exporter; return its last word if it fails, else nothing."""
    if way.missing:
        return way.missing
    try:
        done = subprocess.run(
            way.command(checkpoint, output, WORK / "cache"),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"no end after {LIMIT} s"
    if done.returncode == 0:
        return ""
    return plain(last_word(done.stderr or done.stdout) or f"exit code {done.returncode}")


def last_word(text: str) -> str:
    """Return the last line that names an error, or else the last line; before the bare name of an
    error comes the line of the program that raised it.
    """
    lines = [COLOURS.sub("", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line.strip("^~ ")]  # not the marks below a line
    errors = [place for place, line in enumerate(lines) if "Error" in line]
    place = errors[-1] if errors else len(lines) - 1
    begin = place - 1 if place > 0 and lines[place].isidentifier() else place
    return ": ".join(lines[begin : place + 1])


def summary(report: Report) -> dict[str, Any]:
    """Return what the page says of a report."""
    return {
        "columns": [asdict(column) for column in report.columns],
        "cells": [
            {
                "case": cell.case,
                "column": cell.column,
                "state": cell.state,
                "max_abs": cell.difference and cell.difference.max_abs,
                "kl": cell.difference and cell.difference.kl,
                "note": plain(cell.note),
            }
            for cell in report.cells
        ],
    }


def plain(text: str) -> str:
    """Return a text without this machine's paths, in one line of bounded length."""
    text = " ".join(text.replace(str(ROOT), ".").split())
    return text if len(text) <= 300 else f"{text[:297]}…"


if __name__ == "__main__":
    main()
