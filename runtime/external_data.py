"""External data of an ONNX file: where they lie. Only initializers may have any.

All functions raise ValueError, in words that say what is wrong with the file.
"""

from dataclasses import dataclass

from gptoss_onnx.runtime.onnx_fields import (
    AttributeField,
    FunctionField,
    GraphField,
    NodeField,
    TensorField,
)
from gptoss_onnx.runtime.protobuf import Reader, as_bytes, as_text

_DEPTH_LIMIT = 20  # graphs inside the nodes of graphs


@dataclass(frozen=True)
class ByteRange:
    """Where the data of an external tensor lie: `length` bytes from `offset` on in the file
    `location`.
    """

    location: str
    offset: int
    length: int


def byte_range(reader: Reader, tensor: memoryview, name: str) -> ByteRange | None:
    """Return where a tensor's data lie, None for inside the file.

    Refuses what this project does not write and ONNX Runtime would read: entries beside location,
    offset and length, such as those of prepacked weights.
    """
    if not _is_external(reader, tensor):
        return None
    entries: dict[str, str] = {}
    for number, value in reader.fields(tensor):
        if number == TensorField.EXTERNAL_DATA:
            pair = dict(reader.fields(as_bytes(value)))
            key, text = (as_text(pair.get(part, memoryview(b""))) for part in (1, 2))
            if key in entries:
                raise ValueError(f"the external data of {name!r} have the entry {key!r} twice")
            entries[key] = text
    if entries.keys() != {"location", "offset", "length"}:
        found = ", ".join(sorted(entries)) or "no entries"
        raise ValueError(
            f"the external data of {name!r} have {found}, expected location, offset and length"
        )
    return ByteRange(entries["location"], _count(entries["offset"]), _count(entries["length"]))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"found {text[:40]!r} in external data, expected a number of bytes")
    return int(text)


def _is_external(reader: Reader, tensor: memoryview) -> bool:
    # Any location but 0, also one that another reader cuts off to 32 bits.
    return any(
        number == TensorField.EXTERNAL_DATA or (number == TensorField.DATA_LOCATION and value != 0)
        for number, value in reader.fields(tensor)
    )


def _refuse_external(reader: Reader, tensor: memoryview) -> None:
    if _is_external(reader, tensor):
        raise ValueError("a tensor that is not an initializer of the main graph has external data")


def refuse_external_in_node(reader: Reader, node: memoryview, depth: int = 0) -> None:
    """Refuse external data in the attributes of a node, `depth` graphs deep."""
    for number, value in reader.fields(node):
        if number == NodeField.ATTRIBUTE:
            _refuse_external_in_attribute(reader, as_bytes(value), depth)


def _refuse_external_in_attribute(reader: Reader, attribute: memoryview, depth: int) -> None:
    for number, value in reader.fields(attribute):
        if number in (AttributeField.TENSOR, AttributeField.TENSORS):
            _refuse_external(reader, as_bytes(value))
        elif number in (AttributeField.SPARSE, AttributeField.SPARSES):
            refuse_external_in_sparse(reader, as_bytes(value))
        elif number in (AttributeField.GRAPH, AttributeField.GRAPHS):
            _refuse_external_in_graph(reader, as_bytes(value), depth + 1)


def _refuse_external_in_graph(reader: Reader, graph: memoryview, depth: int) -> None:
    if depth > _DEPTH_LIMIT:
        raise ValueError(f"its graphs are nested more than {_DEPTH_LIMIT} deep")
    for number, value in reader.fields(graph):
        if number == GraphField.NODE:
            refuse_external_in_node(reader, as_bytes(value), depth)
        elif number == GraphField.INITIALIZER:
            _refuse_external(reader, as_bytes(value))
        elif number == GraphField.SPARSE_INITIALIZER:
            refuse_external_in_sparse(reader, as_bytes(value))


def refuse_external_in_sparse(reader: Reader, sparse: memoryview) -> None:
    """Refuse external data in a sparse tensor."""
    for number, value in reader.fields(sparse):
        if number in (1, 2):  # values and indices
            _refuse_external(reader, as_bytes(value))


def refuse_external_in_function(reader: Reader, function: memoryview) -> None:
    """Refuse external data in the body of a model-local function."""
    for number, value in reader.fields(function):
        if number == FunctionField.NODE:
            refuse_external_in_node(reader, as_bytes(value))
        elif number == FunctionField.ATTRIBUTE:  # the default of an attribute
            _refuse_external_in_attribute(reader, as_bytes(value), 0)
