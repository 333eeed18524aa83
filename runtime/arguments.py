"""Check what callers pass, so that a wrong type or size is one InputError and nothing else."""

import math
import operator
import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.errors import InputError

_BOOLEANS = (bool, np.bool_)
_INT64 = np.iinfo(np.int64)

# What numpy raises for values that are no array: rows of different lengths, objects that refuse.
_NO_ARRAY = (ValueError, TypeError, OverflowError, RuntimeError, MemoryError)


def integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return an integer of Python or numpy from `least` to `most`; raises InputError, also for
    booleans.
    """
    limits = f"an integer of at least {least}" if most is None else f"an integer, {least} to {most}"
    found = None if isinstance(value, _BOOLEANS) else _index(value)
    if found is None or found < least or (most is not None and found > most):
        raise InputError(f"{name}: found {shown(value)}, expected {limits}")
    return found


def number(name: str, value: object, expected: str) -> float:
    """Return a finite number of Python or numpy; raises InputError, also for booleans and text.

    `expected` ends the error message: what the caller needs of the number.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(
        value, _BOOLEANS
    ):
        try:
            found = float(value)
        except OverflowError:  # an int beyond float64
            found = math.inf
        if math.isfinite(found):
            return found
    raise InputError(f"{name}: found {shown(value)}, expected {expected}")


def integer_array(name: str, values: object) -> NDArray[Any]:
    """Return an array of integers of the type that it has; raises InputError for anything else.

    The caller checks the range before it casts: uint64 values above 2^63 would turn negative.
    """
    try:
        array = np.asarray(values)
    except _NO_ARRAY as error:
        raise InputError(
            f"{name}: found rows of different lengths, or no numbers; expected an array of "
            "integers: "
            "pad rows on the right and pass new_lengths"
        ) from error
    if array.size == 0:
        return np.zeros(array.shape, np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name}: found {array.dtype}, expected integers")
    return array


def check_range(name: str, array: NDArray[Any], end: int) -> NDArray[np.int64]:
    """Return `array` as int64; raises InputError naming the first value that is not 0 to `end` −
    1.
    """
    bad = (array < 0) | (array >= end)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        place = ", ".join(map(str, index))
        raise InputError(f"{name}[{place}]: found {array[index]}, expected 0 to {end - 1}")
    return array.astype(np.int64)


def within_int64(name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    """Return `array` as int64; raises InputError naming the first value beyond it."""
    if array.dtype == np.uint64 and (array > np.uint64(_INT64.max)).any():
        raise InputError(f"{name}: found {array.max()}, expected at most {_INT64.max}")
    return array.astype(np.int64)


def folder_path(name: str, value: object, kind: str = "folder") -> str:
    """Return the path of a folder, or of a file if `kind` says so, as text; raises InputError for
    what cannot be a path on any machine.
    """
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    try:
        good = isinstance(path, str) and path != "" and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        good = False
    if not good:
        raise InputError(f"{name}: found {shown(value)}, expected the path of a {kind}")
    return str(path)


def shown(value: object) -> str:
    """Return a value as an error names it, in one line of bounded length."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the caller's own __repr__, or an int of too many digits
        text = type(value).__name__
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}…"


def _index(value: object) -> int | None:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what is no integer raises TypeError
    except TypeError:
        return None


def row_integers(values: ArrayLike, what: str, batch: int) -> NDArray[np.int64]:
    """Return an integer for each row (B), given as such or as one for all; raises InputError."""
    array = integer_array(what, values)
    if array.shape not in ((), (batch,)) or array.size == 0:
        raise InputError(
            f"{what}: found {array.dtype} of shape {array.shape}, expected one integer, or {batch} "
            "(one a row)"
        )
    return np.broadcast_to(within_int64(what, array), (batch,)).copy()
