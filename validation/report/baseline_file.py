"""A baseline as a file to keep beside the code: small, sorted, and the same for the same findings.

    {
      "format": "gptoss-onnx-baseline",
      "format_version": 1,
      "cells": {
        "decode": {
          "native": {"state": "passed", "max_abs": 1.6e-05, "kl": 1e-09, "top1": 1.0},
          "portable": {"state": "failed", "max_abs": 0.032, "kl": 0.00011, "top1": 0.972}
        }
      },
      "comparisons": {
        "graph": {
          "state": "failed",
          "findings": [
            "layers.3 MoEDispatch alpha: 1.703125, expected 1.702"
          ]
        }
      }
    }

The file may come from strangers, as a pull request does: it is bounded, and only what is listed
here is read from it.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from gptoss_onnx.errors import InputError
from gptoss_onnx.files import write_atomically
from gptoss_onnx.json_text import printable, read_json_object
from gptoss_onnx.validation.report.baseline import (
    MOST_FINDINGS,
    MOST_LETTERS,
    NOISE,
    Baseline,
    CellRecord,
    ComparisonRecord,
    Error,
)
from gptoss_onnx.validation.report.document import State

FORMAT, FORMAT_VERSION = "gptoss-onnx-baseline", 1
FILE_LIMIT = 1_000_000  # bytes: thousands of cells
NOT_FINITE: Literal["not finite"] = "not finite"


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write a baseline; the folder is made if missing.

    Raises:
        InputError: it is larger than such a file may be.
    """
    content = f"{_lines(_document(baseline))}\n".encode()
    if len(content) > FILE_LIMIT:
        raise InputError(
            f"{path}: the baseline would have {len(content)} bytes, expected at most {FILE_LIMIT}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def read_baseline(path: Path) -> Baseline:
    """Return the baseline in a file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is not of the form that `write_baseline` writes.
    """
    document = read_json_object(path, InputError, FILE_LIMIT)
    try:
        head = (document.get("format"), document.get("format_version"))
        if head != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"expected format {FORMAT!r}, format_version {FORMAT_VERSION}")
        _check_keys("the document", document, {"format", "format_version", "cells", "comparisons"})
        cells = {
            case: {
                column: _cell(f"{case}, {column}", it) for column, it in _object(case, of).items()
            }
            for case, of in _object("cells", document.get("cells")).items()
        }
        compared = _object("comparisons", document.get("comparisons"))
        return Baseline(cells, {name: _comparison(name, it) for name, it in compared.items()})
    except ValueError as error:
        said = printable(str(error)[:MOST_LETTERS])
        raise InputError(f"{path}: {said}; delete it and write it with --write-baseline") from error


def _document(baseline: Baseline) -> dict[str, Any]:
    """Return the content of the file, in an order that does not depend on the run's."""
    cells = {
        case: {column: _of_cell(baseline.cells[case][column]) for column in sorted(columns)}
        for case, columns in sorted(baseline.cells.items())
    }
    comparisons = {
        name: {"state": record.state, "findings": list(record.findings)}
        for name, record in sorted(baseline.comparisons.items())
    }
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    return {**head, "cells": cells, "comparisons": comparisons}


def _lines(value: Any, indent: str = "") -> str:
    """Return JSON with each record of a cell, and each finding, on a line of its own."""
    inner = indent + "  "
    if isinstance(value, dict) and any(isinstance(it, (dict, list)) for it in value.values()):
        entries = [f"{json.dumps(key)}: {_lines(it, inner)}" for key, it in value.items()]
    elif isinstance(value, list) and value:
        entries = [json.dumps(it) for it in value]
    else:
        return json.dumps(value, allow_nan=False)
    first, last = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return "\n".join([first, ",\n".join(f"{inner}{it}" for it in entries), f"{indent}{last}"])


def _of_cell(record: CellRecord) -> dict[str, Any]:
    top1 = {} if record.top1 is None else {"top1": record.top1}
    return {"state": record.state, **record.errors, **top1}


def _cell(where: str, value: object) -> CellRecord:
    entry = _object(where, value)
    _check_keys(where, entry, {"state", "top1", *NOISE})
    top1 = _number(where, entry["top1"]) if "top1" in entry else None
    if top1 is not None and top1 > 1:
        raise ValueError(f"{where}: top1: found {top1:g}, expected a share of 1")
    errors = {name: _error(f"{where}: {name}", entry[name]) for name in NOISE if name in entry}
    return CellRecord(_state(where, entry), errors, top1)


def _comparison(where: str, value: object) -> ComparisonRecord:
    entry = _object(where, value)
    _check_keys(where, entry, {"state", "findings"})
    findings = entry.get("findings")
    if not isinstance(findings, list) or len(findings) > MOST_FINDINGS:
        raise ValueError(f"{where}: findings: expected a list of at most {MOST_FINDINGS}")
    if not all(isinstance(text, str) and len(text) <= MOST_LETTERS for text in findings):
        raise ValueError(f"{where}: findings: expected texts of at most {MOST_LETTERS} letters")
    return ComparisonRecord(_state(where, entry), tuple(findings))


def _state(where: str, entry: Mapping[str, Any]) -> State:
    known: tuple[State, ...] = get_args(State)
    for state in known:
        if entry.get("state") == state:
            return state
    raise ValueError(f"{where}: state: expected one of {', '.join(known)}")


def _error(where: str, value: object) -> Error:
    return NOT_FINITE if value == NOT_FINITE else _number(where, value)


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: expected a number")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{where}: found {value:g}, expected 0 or more")
    return float(value)


def _object(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object")
    return value


def _check_keys(where: str, entry: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(entry.keys() - known)
    if unknown:
        raise ValueError(f"{where}: found {unknown[0][:80]!r}, expected {', '.join(sorted(known))}")
