"""Constants: what positions are computed with."""

from collections.abc import Callable

import numpy as np
from onnx import numpy_helper

from mutants.copied import Copied
from mutants.edits import Array, named, number, scalar_beside
from mutants.mutant import table

INVERSE = named("inv_freq")


def _plain(copied: Copied) -> None:
    """Leave YaRN out of the frequencies."""
    tensor, model = copied.tensor("inv_freq"), copied.manifest["model"]
    exponents = np.arange(0, model["head_dim"], 2, dtype=np.float32) / model["head_dim"]
    theta = model["rope_theta"]
    plain = (1 / theta**exponents).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(plain, tensor.name))


def _with(index: int, factor: float) -> Callable[[Array], Array]:
    """Multiply one of several numbers."""

    def value(old: Array) -> Array:
        old[index] *= factor
        return old

    return value


CONSTANTS = table(
    "constants",
    (
        "one frequency up by a thousandth",
        number(INVERSE, _with(1, 1.001)),
        "inv_freq",
        "native: prefill 45",
    ),
    (
        "the slowest frequency is not stretched",
        number(INVERSE, _with(-1, 1.5)),
        "inv_freq",
        "native: prefill 200",
    ),
    ("frequencies without YaRN", _plain, "inv_freq", "native: prefill 45"),
    (
        "frequencies rounded to float16",
        number(INVERSE, lambda old: old.astype(np.float16).astype(np.float32)),
        "inv_freq",
        "native: prefill 45",
    ),
    (
        "no attention factor",
        number(scalar_beside("Cos"), np.ones_like),
        "constant|Mul|Cos|rope",
        "native: prefill 45",
    ),
    (
        "the attention factor of a stretch of half the length",
        number(scalar_beside("Cos"), lambda old: old - np.float32(0.1 * np.log(2))),
        "constant|Mul|Cos|rope",
        "native: prefill 45",
    ),
)
