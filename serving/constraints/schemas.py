"""JsonSchema: the schema of a stranger, within the limits that this server sets."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from gptoss_onnx.errors import InputError

BYTES_LIMIT = 65_536  # of one schema as compact JSON
BYTES_TOGETHER = 262_144  # of all schemas of a request
DEPTH_LIMIT = 48  # objects and lists inside each other; each property takes two
# characters of one name, value or pattern: each token of it takes time for what is left of it,
# 12 ms of 60,000 characters
TEXT_LIMIT = 2_000
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
_SAYS_NOTHING = ("description", "title", "$comment", "default", "examples")  # of any length
_OPTIONS = "x-guidance"  # by which a schema would change how llguidance reads it


@dataclass(frozen=True)
class JsonSchema:
    """A schema whose size is bounded; whether it means something, only a compiler knows.

    Attributes:
        text: as compact JSON.
        where: its place in the request, for messages.
        is_lenient: keywords that cannot be enforced count for nothing, instead of being refused.
    """

    text: str
    where: str
    is_lenient: bool = False

    @classmethod
    def of(cls, schema: Mapping[str, Any], where: str, is_lenient: bool = False) -> Self:
        """Take a schema as JSON readers give it; raises InputError where it is beyond a limit."""
        depth = _depth(schema)
        if depth > DEPTH_LIMIT:
            raise InputError(
                f"{where}: found a schema nested deeper than {DEPTH_LIMIT}, "
                f"expected at most {DEPTH_LIMIT}"
            )
        longest = max(map(len, _texts(schema)), default=0)
        if longest > TEXT_LIMIT:
            raise InputError(
                f"{where}: found a name, value or pattern of {longest} characters, expected at "
                f"most {TEXT_LIMIT}"
            )
        own = {key: value for key, value in schema.items() if key != _OPTIONS}
        text = json.dumps(own, ensure_ascii=False, separators=(",", ":"))
        size = _size(text, where)
        if size > BYTES_LIMIT:
            raise InputError(f"{where}: found {size} bytes, expected at most {BYTES_LIMIT}")
        return cls(text, where, is_lenient)


def check_together(schemas: Sequence[JsonSchema]) -> None:
    """Raise InputError where the schemas of a request are too much together."""
    size = sum(len(schema.text.encode()) for schema in schemas)
    if size > BYTES_TOGETHER:
        raise InputError(
            f"tools: found schemas of {size} bytes together, expected at most {BYTES_TOGETHER}"
        )


def _size(text: str, where: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: found half a surrogate pair, expected Unicode") from error


def _depth(schema: Any) -> int:
    """Return how deep objects and lists are nested, or one more than allowed as soon as that is
    certain.
    """
    level, depth = [schema], 0
    while level and depth <= DEPTH_LIMIT:
        level = [inner for value in level for inner in _inner(value)]
        depth += 1
    return depth


def _inner(value: Any) -> Iterator[Any]:
    entries = value.values() if isinstance(value, dict) else value
    for entry in entries:
        if isinstance(entry, (dict, list)):
            yield entry


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a schema that an answer may have to spell out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for key, inner in value.items():
            # a property of such a name is an object
            if key not in _SAYS_NOTHING or isinstance(inner, dict):
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
