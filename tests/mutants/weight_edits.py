"""Changes of weights: what a careless converter, a bad disk or a wrong offset does to them.

Tensors have the checkpoint's names, without `model.`. A row is what the first axis counts.
"""

import json
import struct
from collections.abc import Callable

from mutants.copied import Copied
from mutants.mutant import Change

Bytes = bytearray


def flip(tensor: str, row: int, byte: int, mask: int) -> Change:
    """Flip bits of one byte of one row; a negative row counts from the end."""

    def edit(content: Bytes, rows: int) -> Bytes:
        content[row % rows * (len(content) // rows) + byte] ^= mask
        return content

    return content_of(tensor, edit)


def exchange_rows(tensor: str, first: int, second: int) -> Change:
    """Exchange two rows: two experts, for instance."""

    def edit(content: Bytes, rows: int) -> Bytes:
        size = len(content) // rows
        one, other = (slice(row * size, (row + 1) * size) for row in (first, second))
        content[one], content[other] = content[other], content[one]
        return content

    return content_of(tensor, edit)


def roll(tensor: str) -> Change:
    """Begin a row late, as an offset that is wrong by one row would."""
    return content_of(tensor, lambda content, rows: _turned(content, len(content) // rows))


def _turned(content: Bytes, size: int) -> Bytes:
    return content[size:] + content[:size]


def transpose(tensor: str, width: int = 2) -> Change:
    """Store a matrix (rows, columns) of `width` bytes a number as (columns, rows)."""

    def edit(content: Bytes, rows: int) -> Bytes:
        columns = len(content) // rows // width
        cells = [content[at : at + width] for at in range(0, len(content), width)]
        return Bytes().join(
            cells[row * columns + column] for column in range(columns) for row in range(rows)
        )

    return content_of(tensor, edit)


def evens_first(tensor: str, width: int = 2) -> Change:
    """Put the even numbers of each row before the odd ones: gates, then ups."""

    def edit(content: Bytes, rows: int) -> Bytes:
        size = len(content) // rows
        done = Bytes()
        for begin in range(0, len(content), size):
            cells = [content[at : at + width] for at in range(begin, begin + size, width)]
            done += Bytes().join(cells[::2] + cells[1::2])
        return done

    return content_of(tensor, edit)


def put(tensor: str, row: int, byte: int, value: bytes) -> Change:
    """Write bytes into one row."""

    def edit(content: Bytes, rows: int) -> Bytes:
        begin = row % rows * (len(content) // rows) + byte
        content[begin : begin + len(value)] = value
        return content

    return content_of(tensor, edit)


def add_to(tensor: str, row: int, byte: int, more: int) -> Change:
    """Add to one byte of one row: to a scale, which is an exponent."""

    def edit(content: Bytes, rows: int) -> Bytes:
        content[row % rows * (len(content) // rows) + byte] += more
        return content

    return content_of(tensor, edit)


def content_of(tensor: str, edit: Callable[[Bytes, int], Bytes]) -> Change:
    """Change the bytes of a weight; `edit` is told how many rows there are."""

    def change(copied: Copied) -> None:
        rows = copied.tensor(tensor).dims[0]
        copied.put_bytes(tensor, edit(copied.bytes_of(tensor), rows))

    return change


def reads(tensor: str, other: str) -> Change:
    """Let a weight be the bytes of another one of its size."""

    def change(copied: Copied) -> None:
        found, source = copied.tensor(tensor), copied.tensor(other)
        del found.external_data[:]
        found.external_data.extend(source.external_data)

    return change


def typed(tensor: str, data_type: int) -> Change:
    """Say that a weight's bytes are numbers of another type of that width."""

    def change(copied: Copied) -> None:
        found = copied.tensor(tensor)
        found.data_type = data_type
        for info in copied.model.graph.value_info:
            if info.name == found.name:
                info.type.tensor_type.elem_type = data_type

    return change


def shifted(tensor: str, rows: int) -> Change:
    """Let a weight begin some rows late in its file."""

    def change(copied: Copied) -> None:
        found = copied.tensor(tensor)
        entries = {entry.key: entry for entry in found.external_data}
        row = int(entries["length"].value) // found.dims[0]
        entries["offset"].value = str(int(entries["offset"].value) + rows * row)

    return change


def exchange_names(file: str, first: str, second: str) -> Change:
    """Exchange two tensors' names in the header of a weight file; the graph goes by bytes."""

    def change(copied: Copied) -> None:
        path = copied.folder / file
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        header[first], header[second] = header[second], header[first]
        text = json.dumps(header, separators=(",", ":")).encode().ljust(size)
        assert len(text) == size
        path.write_bytes(content[:8] + text + content[8 + size :])

    return change
