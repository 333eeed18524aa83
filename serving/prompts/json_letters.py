"""JSON as OpenAI's renderer of harmony writes it: no spaces, and floats in their shortest form."""

import json
import math
from typing import Any

_LARGEST = 2**64  # from here on, and below −2^63, it takes integers for floats
_SMALLEST = -(2**63)


def json_letters(value: Any) -> str:
    """Return plain data as JSON in one line.

    Floats differ from Python's in their exponents: 1e22 and 1e-7 instead of 1e+22 and 1e-07, and
    0.00001 without one.
    """
    if isinstance(value, dict):
        pairs = (f"{json_letters(key)}:{json_letters(entry)}" for key, entry in value.items())
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{','.join(json_letters(entry) for entry in value)}]"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if _SMALLEST <= value < _LARGEST else _float(float(value))
    if isinstance(value, float):
        return _float(value)
    return json.dumps(value, ensure_ascii=False)


def _float(value: float) -> str:
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    if int(exponent) == -5:
        sign = "-" if math.copysign(1, value) < 0 else ""
        return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e{int(exponent)}"
