"""JsonSchema: the schema of a stranger, within the limits that this server sets."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from gptoss_onnx.errors import InputError

BYTES_LIMIT = 65_536  # of one schema as compact JSON
BYTES_TOGETHER = 262_144  # of all schemas of a request
DEPTH_LIMIT = 48  # objects and lists inside each other; each property takes two
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
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
        own = {key: value for key, value in schema.items() if key != _OPTIONS}
        text = json.dumps(own, ensure_ascii=False, separators=(",", ":"))
        size = _size(text, where)
        if size > BYTES_LIMIT:
            raise InputError(f"{where}: found {size} bytes, expected at most {BYTES_LIMIT}")
        return cls(text, where, is_lenient)

    @property
    def key(self) -> tuple[str, bool]:
        """What it means, wherever it stands."""
        return self.text, self.is_lenient


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
