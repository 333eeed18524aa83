"""Read a package's golden vectors, which come with the package, and trust nothing in them.

Legend: T recorded positions, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.errors import PackageError
from gptoss_onnx.json_text import read_json_object
from gptoss_onnx.package import GOLDEN_FILE

FILE_LIMIT = 16_000_000  # bytes; an export writes less than two million
MOST_CASES = 64
LONGEST = 4096  # tokens of a case: the reference has to compute them


@dataclass(frozen=True)
class GoldenCase:
    """One prompt, what follows it greedily, and what the reference's logits were at some positions.

    `top_indices` and `top_logits` hold the largest logits, a row for each of T positions;
    `sampled_logits` those at the file's `sampled_indices`.
    """

    name: str
    token_ids: list[int]
    greedy: list[int]
    positions: list[int]
    top_indices: list[list[int]]
    top_logits: list[list[float]]
    sampled_logits: list[list[float]]


@dataclass(frozen=True)
class Golden:
    """The file: which vocabulary indices were sampled, and the cases."""

    sampled_indices: list[int]
    cases: tuple[GoldenCase, ...]


def read_golden(folder: Path, vocab_size: int) -> Golden:
    """Return the golden vectors of a package folder.

    Args:
        folder: the package.
        vocab_size: V; every index must be below.

    Raises:
        PackageError: the file is missing, or is not of the form that an export writes.
    """
    path = folder / GOLDEN_FILE
    if path.exists() and not path.resolve().is_relative_to(folder.resolve()):
        raise PackageError(f"{path}: found a link to {path.resolve()}, expected a file in {folder}")
    try:
        document = read_json_object(path, PackageError, FILE_LIMIT)
    except FileNotFoundError as error:
        raise PackageError(
            f"{path}: not found; write it with `gptoss-onnx validate --write-golden`"
        ) from error
    try:
        sampled = _list(document, "sampled_indices", _index(vocab_size))
        entries = document.get("cases")
        if not isinstance(entries, list) or not 0 < len(entries) <= MOST_CASES:
            raise ValueError(f"cases: expected a list of 1 to {MOST_CASES}")
        cases = tuple(
            _case(entry, number, vocab_size, len(sampled)) for number, entry in enumerate(entries)
        )
        if len({case.name for case in cases}) != len(cases):
            raise ValueError("cases: two have the same name")
        return Golden(sampled, cases)
    except ValueError as error:
        raise PackageError(
            f"{path}: {error}; delete the folder and write it with --write-golden"
        ) from error


def _case(entry: Any, number: int, vocab_size: int, sampled: int) -> GoldenCase:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"cases[{number}]: expected an object with a name")
    index = _index(vocab_size)
    tokens = _list(entry, "token_ids", index, at_least=1)
    if len(tokens) > LONGEST:
        raise ValueError(f"token_ids: found {len(tokens)}, expected at most {LONGEST}")
    positions = _list(entry, "positions", _index(len(tokens)), at_least=1)
    top_indices = _rows(entry, "top_indices", index, len(positions))
    width = len(top_indices[0])
    if width < 1:
        raise ValueError("top_indices: found an empty row")
    return GoldenCase(
        name=entry["name"],
        token_ids=tokens,
        greedy=_list(entry, "greedy", index),
        positions=positions,
        top_indices=_of_width("top_indices", top_indices, width),
        top_logits=_of_width(
            "top_logits", _rows(entry, "top_logits", _is_number, len(positions)), width
        ),
        sampled_logits=_of_width(
            "sampled_logits", _rows(entry, "sampled_logits", _is_number, len(positions)), sampled
        ),
    )


def _list(
    entry: Mapping[str, Any], key: str, fits: Callable[[Any], bool], at_least: int = 0
) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, list) or len(value) < at_least or not all(map(fits, value)):
        raise ValueError(f"{key}: not a list as an export writes it")
    return value


def _rows(
    entry: Mapping[str, Any], key: str, fits: Callable[[Any], bool], count: int
) -> list[list[Any]]:
    rows = _list(entry, key, lambda row: isinstance(row, list) and all(map(fits, row)))
    if len(rows) != count:
        raise ValueError(
            f"{key}: found {len(rows)} rows, expected one for each of {count} positions"
        )
    return rows


def _of_width(key: str, rows: list[list[Any]], width: int) -> list[list[Any]]:
    if any(len(row) != width for row in rows):
        raise ValueError(f"{key}: expected {width} entries in every row")
    return rows


def _index(size: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value < size


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
