"""Fields: read the fields of a JSON object that a client sent, each checked where it is read.

What is not read is ignored, as clients of newer APIs expect. `null` means the field is not there.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from gptoss_onnx.serving.errors import ApiError, wrong_field

_SHOWN = 60  # characters of a value that a message repeats


class Fields:
    """The fields of one object of a request.

    Every method takes a field's name and returns its value, or `default` where the request has
    none. It raises ApiError (400) for a value that does not fit, naming the field, what was found
    and what was expected.

    Attributes:
        value: the object as it came.
        where: its place in the request, such as `messages[2]`; empty for the request itself.
    """

    def __init__(self, value: Any, where: str = "") -> None:
        if not isinstance(value, dict):
            raise wrong_field(where or "body", shown(value), "an object")
        self.value, self.where = value, where

    def path(self, name: str) -> str:
        """Return the place of a field in the request, as messages name it."""
        return f"{self.where}.{name}" if self.where else name

    def has(self, name: str) -> bool:
        """Say whether the request has the field, with a value that is not null."""
        return self.value.get(name) is not None

    def wrong(self, name: str, expected: str) -> ApiError:
        """Return the error of a field whose value is not what is expected."""
        found = shown(self.value[name]) if name in self.value else "nothing"
        return wrong_field(self.path(name), found, expected)

    def integer(self, name: str, least: int, most: int, default: int) -> int:
        """Read an integer, limits included; 4.0 is one, as in JSON Schema."""
        value = self.value.get(name)
        if value is None:
            return default
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, f"an integer, {least} to {most}")
        return value

    def number(self, name: str, least: float, most: float, default: float) -> float:
        """Read a number, limits included."""
        value = self.value.get(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not least <= value <= most:
            raise self.wrong(name, f"a number, {least:g} to {most:g}")
        assert math.isfinite(value)
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        """Read true or false."""
        value = self.value.get(name)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.wrong(name, "true or false")
        return value

    def text(self, name: str, default: str | None = None, *, longest: int | None = None) -> str:
        """Read a text of at most `longest` characters; without a default it must be there."""
        value = self.value.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or (longest is not None and len(value) > longest):
            limit = "" if longest is None else f" of at most {longest} characters"
            raise self.wrong(name, f"a text{limit}")
        return value

    def matching(self, name: str, pattern: re.Pattern[str], expected: str) -> str:
        """Read a text of a form, which must be there; `expected` says the form in words."""
        value = self.value.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.wrong(name, expected)
        return value

    def one_of(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        """Read one of a few words; without a default it must be there."""
        value = self.value.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or value not in allowed:
            raise self.wrong(name, " or ".join(f'"{word}"' for word in allowed))
        return value

    def items(self, name: str, most: int, least: int = 0) -> list[Any]:
        """Read a list of `least` to `most` entries of any kind; [] where there is none."""
        value = self.value.get(name)
        if value is None:
            value = []
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise self.wrong(name, f"a list of {least} to {most} entries")
        return value

    def objects(self, name: str, most: int, least: int = 0) -> list["Fields"]:
        """Read a list of objects."""
        entries = enumerate(self.items(name, most, least))
        return [Fields(entry, f"{self.path(name)}[{place}]") for place, entry in entries]

    def object(self, name: str) -> "Fields | None":
        """Read an object; None where there is none."""
        return Fields(self.value[name], self.path(name)) if self.has(name) else None

    def needed_object(self, name: str) -> "Fields":
        """Read an object that must be there."""
        return Fields(self.value.get(name), self.path(name))


def shown(value: Any) -> str:
    """Return what a client sent as an error message repeats it: its kind, and not much of it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)} entries"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else f"{value}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
