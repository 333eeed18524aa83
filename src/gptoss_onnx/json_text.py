"""JSON: as this project writes it, and as it reads what strangers wrote.

Written documents are indented ASCII without the infinities and NaNs that JSON does not have.
Documents are read with limits on size, depth and digits, which Python's own reader answers with
RecursionError, ValueError or gigabytes.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.files import read_file

JSON_LIMIT = 16_000_000  # bytes of one document: at worst half a gigabyte of Python objects
DEPTH_LIMIT = 100  # objects and lists inside each other
DIGITS_LIMIT = 40  # of one integer; 64 bits have 20
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Strings are matched possessively: a string of megabytes must not leave a trace of each letter to
# go back to.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def dump_json(document: Mapping[str, Any]) -> str:
    """Return the document as JSON text; numbers that are not finite become null."""
    return json.dumps(_finite(document), indent=2, allow_nan=False)


def parse_json(text: bytes, where: str, error: type[GptOssError], most: int | None = None) -> Any:
    """Return the value of a JSON text in UTF-8, which holds at most `most` objects and lists.

    Raises `error` for what is not JSON (NaN and Infinity are not), for a key that appears twice in
    an object, for text that is not Unicode, and for a document that is nested too deep or holds a
    number of too many digits.
    """
    try:
        document = text.decode("utf-8-sig")
        _check_depth(text, most)
        value = json.loads(
            document,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # fails for half of a pair
        return value
    except (ValueError, RecursionError) as problem:
        raise error(f"{where}: not JSON ({printable(str(problem))})") from problem


def read_json_object(
    path: Path, error: type[GptOssError], limit: int = JSON_LIMIT
) -> dict[str, Any]:
    """Return the JSON object in a file of at most `limit` bytes.

    Raises FileNotFoundError where there is no such file, and `error` as `read_file` and
    `parse_json` do, and for a value that is not an object.
    """
    document = parse_json(read_file(path, limit, error), str(path), error)
    if not isinstance(document, dict):
        raise error(f"{path}: found {type(document).__name__}, expected a JSON object")
    return document


def printable(text: str) -> str:
    """Return a text with its control characters escaped, so that printing it cannot steer a
    terminal.

    Line ends count as control characters. So do the marks that turn the direction of writing, and
    lone surrogates, which no encoding can print.
    """
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def _check_depth(text: bytes, most: int | None) -> None:
    """Refuse brackets nested too deep outside of strings, before Python's reader recurses into
    them, and too many.
    """
    depth = count = 0
    for match in _BRACKETS.finditer(text):
        token = match.group()
        if token in (b"[", b"{"):
            depth += 1
            count += 1
            if most is not None and count > most:
                raise ValueError(f"more than {most} objects and lists")
            if depth > DEPTH_LIMIT:
                raise ValueError(f"nested more than {DEPTH_LIMIT} deep")
        elif token in (b"]", b"}"):
            depth -= 1


def _integer(digits: str) -> int:
    if len(digits) > DIGITS_LIMIT:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(
            f"the number {digits[:DIGITS_LIMIT]}, which is beyond the range of a double"
        )
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"{key[:80]!r} appears twice")
            seen.add(key)
    return document


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
