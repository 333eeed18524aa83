"""Numbers that JSON lacks: the strings `NaN`, `Infinity` and `-Infinity` stand for them, as in the
JSON form of protocol buffers. JavaScript's `Number` and Python's `float` read them.

`null` stands for what is not known, so it cannot stand for these too.
"""

import math
from collections.abc import Mapping
from typing import Any

NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def named(value: Any) -> Any:
    """Return a document in which numbers that JSON lacks are their names."""
    if isinstance(value, Mapping):
        return {key: named(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [named(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
