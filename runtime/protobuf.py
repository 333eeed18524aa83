"""Protocol buffers as they lie in a file, read field by field and with limits; and fields written.

A message is a sequence of fields, each with a number and a value:
https://protobuf.dev/programming-guides/encoding. What this reader refuses is stricter than the
encoding: a key or a number that is longer than any writer makes it, groups, and a field that goes
beyond its message.
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_LIMIT = 10  # bytes: 64 bits, seven a byte
_KEY_LIMIT = 1 << 32  # other readers cut longer keys off, and would see another field

Value = int | memoryview
Field = tuple[int, Value]


class Reader:
    """Reads the fields of messages, so many in all and no more.

    Files of a few megabytes can hold millions of empty messages, each of which costs its readers a
    hundred times its bytes. One reader is for one file.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit

    def fields(self, message: memoryview) -> Iterator[Field]:
        """Yield the number and the value of each field: numbers as int, all else as bytes.

        Raises ValueError where the bytes are not a message, or there are more fields than the
        limit.
        """
        place = 0
        while place < len(message):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"found more than {self._limit} fields")
            key, place = _varint(message, place)
            if key < 8 or key >= _KEY_LIMIT:
                raise ValueError(f"found the field key {key}")
            number, kind = key >> 3, key & 7
            if kind == _VARINT:
                value, place = _varint(message, place)
                yield number, value
                continue
            if kind == _BYTES:
                size, place = _varint(message, place)
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                raise ValueError(f"found wire type {kind}")
            if size > len(message) - place:
                raise ValueError("found the end inside a field")
            yield number, message[place : place + size]
            place += size

    def only(self, message: memoryview, wanted: int) -> memoryview:
        """Return the one field of a number; raises ValueError for none, and for several, which
        would be merged.
        """
        found = [as_bytes(value) for number, value in self.fields(message) if number == wanted]
        if len(found) != 1:
            raise ValueError(f"found {len(found)} fields {wanted}, expected one")
        return found[0]


def as_bytes(value: Value) -> memoryview:
    """Return a field's bytes; raises ValueError for a number."""
    if isinstance(value, int):
        raise ValueError(f"found the number {value}, expected bytes")
    return value


def as_number(value: Value) -> int:
    """Return a field's unsigned number; raises ValueError for bytes."""
    if not isinstance(value, int):
        raise ValueError(f"found {len(value)} bytes, expected a number")
    return value


def as_text(value: Value) -> str:
    """Return a field's text; raises ValueError for a number, and for bytes that are not UTF-8."""
    return bytes(as_bytes(value)).decode()


def signed(value: Value) -> int:
    """Return a field's number as a signed one of 64 bits."""
    number = as_number(value)
    return number - (1 << 64) if number >> 63 else number


def packed(values: memoryview) -> list[int]:
    """Return the unsigned numbers that one field packs together."""
    numbers, place = [], 0
    while place < len(values):
        number, place = _varint(values, place)
        numbers.append(number)
    return numbers


def number_field(number: int, value: int) -> bytes:
    """Return an encoded field that is an unsigned number."""
    return _encoded(number << 3 | _VARINT) + _encoded(value)


def bytes_field(number: int, content: bytes | memoryview) -> bytes:
    """Return an encoded field of bytes, a text or a message."""
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + bytes(content)


def _encoded(number: int) -> bytes:
    """Return a number, seven bits a byte from the lowest on."""
    pieces = bytearray()
    while number > 0x7F:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number at `place`, seven bits a byte from the lowest on, and the place after
    it.
    """
    number = 0
    for index in range(_VARINT_LIMIT):
        if place + index >= len(message):
            raise ValueError("found the end inside a number")
        byte = message[place + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if number >> 64:
                break
            return number, place + index + 1
    raise ValueError("found a number of more than 64 bits")
