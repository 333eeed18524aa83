"""JSON objects as frozen dataclasses: what a document holds must be what the fields declare."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from gptoss_onnx.json_numbers import NAMES

_LISTED = 10  # keys that one message names

Document = TypeVar("Document")


def parse_object(kind: type[Document], value: Any, where: str) -> Document:
    """Build a dataclass from a JSON object of exactly its fields; those with a default may be
    missing.

    Where a number is declared, those that JSON lacks are their names; see `json_numbers`.

    Args:
        kind: the dataclass; its fields are strings, numbers, booleans, literals, mappings, tuples
            of one type, other such dataclasses, or one of these or None.
        value: what a JSON reader gave.
        where: its place in the document, for messages; empty for the document itself.

    Raises:
        TypeError: something does not fit; the message names it.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{where or 'the document'}: found {value!r:.60}, expected an object")
    kinds = get_type_hints(kind)
    needed = {
        field.name
        for field in fields(cast("Any", kind))
        if field.default is MISSING and field.default_factory is MISSING
    }
    prefix = f"{where}." if where else ""
    for problem, keys in (
        ("unknown", value.keys() - kinds.keys()),
        ("missing", needed - value.keys()),
    ):
        if keys:
            more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
            named = ", ".join(f"{prefix}{key:.60}" for key in sorted(keys)[:_LISTED])
            raise TypeError(f"{problem} {named}{more}")
    return kind(**{key: _parse(kinds[key], entry, prefix + key) for key, entry in value.items()})


def _parse(kind: Any, value: Any, where: str) -> Any:
    """Return a JSON value as the type a field declares; raises TypeError where it is of another."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType and is_dataclass(arguments[0]):  # or None
        return None if value is None else _parse(arguments[0], value, where)
    if is_dataclass(kind):
        return parse_object(cast("type[Any]", kind), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(
            _parse(arguments[0], entry, f"{where}[{index}]") for index, entry in enumerate(value)
        )
    if kind is float or (origin is UnionType and float in arguments):
        if type(value) is int:
            return float(value)
        if isinstance(value, str) and value in NAMES:
            return NAMES[value]
    if origin is Literal:
        fits, expected = value in arguments, " or ".join(arguments)
    elif origin in (Mapping, tuple):
        fits, expected = (
            origin is Mapping and isinstance(value, dict),
            "an object" if origin is Mapping else "a list",
        )
    else:
        kinds = arguments or (kind,)
        fits = type(value) in kinds  # exactly: a boolean is no integer
        expected = " or ".join(kind.__name__ for kind in kinds)
    if not fits:
        raise TypeError(f"{where}: found {value!r:.60}, expected {expected}")
    return value
