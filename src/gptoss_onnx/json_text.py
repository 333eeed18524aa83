"""JSON as this project writes it: indented ASCII without the infinities and NaNs that JSON does not have."""

import json
import math
from collections.abc import Mapping
from typing import Any


def dump_json(document: Mapping[str, Any]) -> str:
    """Return the document as JSON text; numbers that are not finite become null."""
    return json.dumps(_finite(document), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
