"""One drawn call of one op: what goes in, how it lies in memory, and whether it must be refused."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Shape = tuple[int, ...]

# ONNX's element types
FLOAT, UINT8, INT8, INT32, INT64, FLOAT16, BFLOAT16 = 1, 2, 3, 6, 7, 10, 16
NUMPY_TYPES = {
    FLOAT: np.float32,
    UINT8: np.uint8,
    INT8: np.int8,
    INT32: np.int32,
    INT64: np.int64,
    FLOAT16: np.float16,
    BFLOAT16: np.uint16,
}
FLOAT_TYPES = (FLOAT, FLOAT16, BFLOAT16)
MODES = ("exact", "bf16", "int8")
SPECIAL = (np.inf, -np.inf, np.nan, 3e38, -3e38, 1e30, 1e-39, -1e-45, 0.0, -0.0)


@dataclass(frozen=True)
class Tensor:
    """One input: its numbers (bfloat16 as its bits), its ONNX type, and its place in memory."""

    array: np.ndarray
    type: int
    offset: int = 0  # bytes beyond a multiple of 16
    # guard bytes behind it; 0: it ends where its allocation does, which AddressSanitizer watches
    tail: int = 64

    def reshaped(self, shape: Shape) -> "Tensor":
        """Return it in another shape, its numbers repeated or cut."""
        array = (
            np.resize(self.array, shape) if self.array.size else np.zeros(shape, self.array.dtype)
        )
        return Tensor(array, self.type, self.offset, self.tail)


@dataclass(frozen=True)
class Case:
    """One call. `error` is a pattern that the error must match, or None where the call must
    succeed.
    """

    op: str
    inputs: dict[str, Tensor | None]
    attributes: dict[str, int | float | str]
    mode: str
    # type and shape of each, where the call must succeed
    outputs: tuple[tuple[int, Shape], ...] = ()
    error: str | None = None
    threads: int = 2
    repeat: str = "no"  # no, again, at once: the same call repeated must give the same bits
    # output number → the input whose memory it shares
    in_place: dict[int, str] = field(default_factory=dict)
    # ("token", n) or ("expert", e) with numbers beyond comparison
    wild: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True)
class Answer:
    """What became of a case: its outputs, the error it was refused with, or what must never
    happen.
    """

    seed: int
    outputs: list[np.ndarray] | None = None
    error: str | None = None
    violation: str | None = None


def refusal(op: str) -> str:
    """Return the pattern of an error that names op, operand, what was found and what was
    expected.
    """
    return rf"{op}: (input|attribute) '\w+': found .+, expected .+"


def size(rng: np.random.Generator, low: int, high: int) -> int:
    """Draw a size: mostly small, often beside a multiple of what a register or tile holds."""
    value = int(np.exp(rng.uniform(0, np.log(high - low + 1)))) + low - 1
    if rng.random() < 0.4:
        step = int(rng.choice((4, 8, 14, 16, 32, 64, 128)))
        value = (value + step - 1) // step * step + int(rng.integers(-1, 2))
    return int(np.clip(value, low, high))


def encode(numbers: np.ndarray, element: int) -> np.ndarray:
    """Return float64 numbers as an element type stores them."""
    with np.errstate(over="ignore", invalid="ignore"):
        if element != BFLOAT16:
            return numbers.astype(NUMPY_TYPES[element])
        bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
        return (bits >> np.uint32(16)).astype(np.uint16).reshape(numbers.shape)


def floats(
    rng: np.random.Generator,
    shape: Sequence[int],
    element: int = FLOAT,
    scale: float = 1.0,
    any_address: bool = False,
) -> Tensor:
    """Draw normal numbers of size `scale` that lie at some address: a multiple of the element's
    size or any.
    """
    return placed(rng, encode(scale * rng.standard_normal(shape), element), element, any_address)


def placed(
    rng: np.random.Generator, array: np.ndarray, element: int, any_address: bool = False
) -> Tensor:
    """Draw an address for the numbers."""
    step = 1 if any_address else array.dtype.itemsize
    return Tensor(array, element, int(rng.integers(0, 64 // step)) * step, int(rng.choice((0, 64))))


def sprinkle(
    rng: np.random.Generator, tensor: Tensor, values: Sequence[float] = SPECIAL, most: int = 4
) -> Tensor:
    """Return the tensor with a few numbers replaced by infinities, NaN, huge and denormal ones."""
    array = tensor.array.copy()
    if array.size:
        places = rng.integers(0, array.size, int(rng.integers(1, most + 1)))
        array.reshape(-1)[places] = encode(rng.choice(values, len(places)), tensor.type)
    return Tensor(array, tensor.type, tensor.offset, tensor.tail)


def misshapen(
    rng: np.random.Generator, inputs: dict[str, Tensor | None]
) -> dict[str, Tensor | None]:
    """Return the inputs with the shape of one changed: a dimension more, less, larger, smaller or
    empty.
    """
    name = str(rng.choice([name for name, tensor in inputs.items() if tensor is not None]))
    tensor = inputs[name]
    assert tensor is not None
    shape = list(tensor.array.shape)
    axis = int(rng.integers(0, len(shape)))
    kind = rng.choice(("longer", "shorter", "double", "empty", "rank up", "rank down", "scalar"))
    if kind == "rank up":
        shape.insert(axis, int(rng.integers(0, 3)))
    elif kind == "rank down":
        shape.pop(axis)
    elif kind == "scalar":
        shape = []
    else:
        shape[axis] = {
            "longer": shape[axis] + 1,
            "shorter": max(0, shape[axis] - 1),
            "double": 2 * shape[axis],
            "empty": 0,
        }[kind]
    return {**inputs, name: tensor.reshaped(tuple(shape))}


def shapes_of(inputs: dict[str, Tensor | None]) -> dict[str, Shape]:
    """Return the shape of each input that is there."""
    return {name: tensor.array.shape for name, tensor in inputs.items() if tensor is not None}
