"""Messages between a staged session and the process of a stage.

A message is the length of a JSON object in 4 bytes, the object, and the bytes of the arrays that
its `arrays` describes, one after the other. Both sides run the same program on the same machine.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH_BYTES = 4
_MOST_TEXT = 1 << 20  # bytes of the object
_MOST_ARRAYS = 20_100  # a row's keys and values, of all layers of the largest model
_MOST_BYTES = 1 << 34  # of an array: logits of 20,000 positions of a large vocabulary
_DTYPES = ("int64", "float32", "float16", "uint16")  # the last for bfloat16


class MessageError(Exception):
    """The other side has ended, or sent what is no message."""


@dataclass(frozen=True)
class Message:
    """A JSON object and the arrays that go with it."""

    fields: Mapping[str, Any]
    arrays: tuple[NDArray[Any], ...] = ()


def send(to: socket.socket, message: Message) -> None:
    """Send a message; raises MessageError where nobody takes it."""
    arrays = [np.ascontiguousarray(array) for array in message.arrays]
    kinds = [[array.dtype.name, list(array.shape)] for array in arrays]
    text = json.dumps({**message.fields, "arrays": kinds}).encode()
    try:
        to.sendall(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for array in arrays:
            to.sendall(_bytes(array))
    except OSError as error:
        raise MessageError(str(error)) from error


def receive(source: socket.socket) -> Message:
    """Wait for a message; raises MessageError when the other side ends first, and for a message
    beyond the limits.
    """
    head = bytearray(_LENGTH_BYTES)
    _fill(source, memoryview(head))
    length = int.from_bytes(head, "little")
    if length > _MOST_TEXT:
        raise MessageError(f"found a message of {length} bytes, expected at most {_MOST_TEXT}")
    text = bytearray(length)
    _fill(source, memoryview(text))
    fields = json.loads(text)
    arrays = tuple(_receive_array(source, *kind) for kind in _kinds(fields.pop("arrays")))
    return Message(fields, arrays)


def _kinds(kinds: Sequence[Any]) -> Sequence[Any]:
    if len(kinds) > _MOST_ARRAYS:
        raise MessageError(f"found {len(kinds)} arrays, expected at most {_MOST_ARRAYS}")
    return kinds


def _receive_array(source: socket.socket, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    if dtype not in _DTYPES or min(shape, default=0) < 0:
        raise MessageError(f"found an array of {dtype} {shape}, expected {' or '.join(_DTYPES)}")
    if prod(shape) * np.dtype(dtype).itemsize > _MOST_BYTES:
        raise MessageError(f"found an array of {shape}, expected at most {_MOST_BYTES} bytes")
    array = np.empty(shape, dtype)
    _fill(source, _bytes(array))
    return array


def _bytes(array: NDArray[Any]) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _fill(source: socket.socket, left: memoryview) -> None:
    while left:
        try:
            count = source.recv_into(left)
        except OSError as error:
            raise MessageError(str(error)) from error
        if count == 0:
            raise MessageError("the other side has ended")
        left = left[count:]
