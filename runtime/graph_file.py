"""Read an ONNX file's nodes and the shapes of its initializers, without the onnx package and without weights.

A message of protocol buffers is a sequence of fields, each with a number: https://protobuf.dev/programming-guides/encoding.
The numbers below are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gptoss_onnx.errors import PackageError

# Bits of an element, by TensorProto.DataType; strings and complex numbers are no weights.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
_BITS |= {17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_Field = tuple[int, int | bytes]


@dataclass(frozen=True)
class Node:
    """One node of the graph; of its attributes only the integers."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int]


@dataclass(frozen=True)
class Initializer:
    """One constant tensor, wherever its data lie."""

    name: str
    shape: tuple[int, ...]
    bits: int  # of an element

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.bits // 8


@dataclass(frozen=True)
class GraphFile:
    """The graph of one model file; function bodies are left out."""

    nodes: tuple[Node, ...]
    initializers: Mapping[str, Initializer]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a model file; raises PackageError where it is none."""
        try:
            return cls._parse(path.read_bytes())
        except (ValueError, IndexError, KeyError) as error:
            raise PackageError(f"{path}: not an ONNX model; export the package again") from error

    @classmethod
    def _parse(cls, model: bytes) -> Self:
        nodes: list[Node] = []
        initializers: dict[str, Initializer] = {}
        for number, value in _fields(_message(model, 7)):  # ModelProto.graph
            if number == 1:
                nodes.append(_node(_bytes(value)))
            elif number == 5:
                initializer = _initializer(_bytes(value))
                initializers[initializer.name] = initializer
        return cls(tuple(nodes), initializers)


def _node(message: bytes) -> Node:
    fields = list(_fields(message))
    texts = {number: [_bytes(value).decode() for key, value in fields if key == number] for number in (1, 2, 4, 7)}
    attributes = {}
    for number, value in fields:
        if number == 5:
            attribute = dict(_fields(_bytes(value)))
            if 3 in attribute:  # AttributeProto.i
                attributes[_bytes(attribute[1]).decode()] = _signed(attribute[3])
    return Node(texts[4][0], "".join(texts[7]), tuple(texts[1]), tuple(texts[2]), attributes)


def _initializer(message: bytes) -> Initializer:
    shape: list[int] = []
    data_type, name = 0, ""
    for number, value in _fields(message):
        if number == 1:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2:
            data_type = int(value)
        elif number == 8:
            name = _bytes(value).decode()
    return Initializer(name, tuple(shape), _BITS[data_type])


def _message(message: bytes, wanted: int) -> bytes:
    found = [_bytes(value) for number, value in _fields(message) if number == wanted]
    if len(found) != 1:
        raise ValueError(f"found {len(found)} fields {wanted}, expected one")
    return found[0]


def _signed(value: int | bytes) -> int:
    number = int(value)
    return number - (1 << 64) if number >> 63 else number


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError(f"found the number {value}, expected bytes")
    return value


def _packed(values: bytes) -> list[int]:
    numbers, place = [], 0
    while place < len(values):
        number, place = _varint(values, place)
        numbers.append(number)
    return numbers


def _fields(message: bytes) -> Iterator[_Field]:
    """Yield the fields of a message: numbers as int, all else as bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"found wire type {kind}")
        if place + size > len(message):
            raise ValueError("found the end inside a field")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Return the number at `place`, seven bits a byte from the lowest on, and the place after it."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place
