"""Read an ONNX file's nodes, its initializers and its external data, without the onnx package and
without weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import read_file
from gptoss_onnx.runtime.external_data import (
    ByteRange,
    byte_range,
    refuse_external_in_function,
    refuse_external_in_node,
    refuse_external_in_sparse,
)
from gptoss_onnx.runtime.onnx_fields import (
    AttributeField,
    GraphField,
    ModelField,
    NodeField,
    TensorField,
)
from gptoss_onnx.runtime.protobuf import Reader, as_bytes, as_number, as_text, packed, signed

# bytes of the file, whose weights lie outside; the largest gpt-oss takes half a million
GRAPH_LIMIT = 8_000_000
FIELDS_LIMIT = 1_000_000  # read in all; the largest gpt-oss needs tens of thousands
_SHAPE_LIMIT = 16  # dimensions
# bytes 4 to 8 of ONNX Runtime's own format, which may look like protocol buffers as well
_ORT_MARK = b"ORTM"

# Bits of an element, by TensorProto.DataType; strings and complex numbers are no weights.
_BITS = {
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    16: 16,
}
_BITS |= {17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8}


@dataclass(frozen=True)
class Node:
    """One node of the graph; of its attributes only the integers and the texts."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int]
    texts: Mapping[str, bytes] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Initializer:
    """One constant tensor; `external` is None where its data lie in the ONNX file itself."""

    name: str
    shape: tuple[int, ...]
    bits: int  # of an element
    external: ByteRange | None = None

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
        """Read a model file.

        Raises PackageError if the file is not an ONNX model, if it is larger than 8 MB, or if
        anything but an initializer of the main graph refers to data outside of it.
        """
        try:
            content = read_file(path, GRAPH_LIMIT, PackageError)
            return cls.parse(memoryview(content))
        except FileNotFoundError:
            raise PackageError(
                f"{path}: no such file, but the manifest names it; export the package again"
            ) from None
        except (ValueError, KeyError) as error:
            raise PackageError(
                f"{path}: not an ONNX model ({error}); export the package again"
            ) from error

    @classmethod
    def parse(cls, model: memoryview, fields: int = FIELDS_LIMIT) -> Self:
        """Read the bytes of a model file, `fields` of them at most.

        Raises ValueError or KeyError as `read` raises PackageError.
        """
        if model[4:8] == _ORT_MARK:
            raise ValueError("it is in ONNX Runtime's own format")
        reader = Reader(fields)
        nodes: list[Node] = []
        initializers: dict[str, Initializer] = {}
        for number, value in reader.fields(reader.only(model, ModelField.GRAPH)):
            if number == GraphField.NODE:
                nodes.append(read_node(reader, as_bytes(value)))
                refuse_external_in_node(reader, as_bytes(value))
            elif number == GraphField.INITIALIZER:
                initializer = read_initializer(reader, as_bytes(value))
                if initializer.name in initializers:
                    raise ValueError(f"the initializer {initializer.name!r} appears twice")
                initializers[initializer.name] = initializer
            elif number == GraphField.SPARSE_INITIALIZER:
                refuse_external_in_sparse(reader, as_bytes(value))
        for number, value in reader.fields(model):
            if number == ModelField.FUNCTIONS:
                refuse_external_in_function(reader, as_bytes(value))
            elif number == ModelField.TRAINING_INFO:
                raise ValueError("it holds training information")
        return cls(tuple(nodes), initializers)


def read_node(reader: Reader, message: memoryview) -> Node:
    """Return what a NodeProto says; raises ValueError if it has not one operator."""
    texts: dict[int, list[str]] = {
        NodeField.INPUT: [],
        NodeField.OUTPUT: [],
        NodeField.NAME: [],
        NodeField.OP_TYPE: [],
        NodeField.DOMAIN: [],
    }
    attributes: dict[str, int] = {}
    words: dict[str, bytes] = {}
    for number, value in reader.fields(message):
        if number in texts:
            texts[number].append(as_text(value))
        elif number == NodeField.ATTRIBUTE:
            attribute = dict(reader.fields(as_bytes(value)))
            if AttributeField.INTEGER in attribute:
                attributes[as_text(attribute[AttributeField.NAME])] = signed(
                    attribute[AttributeField.INTEGER]
                )
            elif AttributeField.TEXT in attribute:
                words[as_text(attribute[AttributeField.NAME])] = bytes(
                    as_bytes(attribute[AttributeField.TEXT])
                )
    if len(texts[NodeField.OP_TYPE]) != 1:
        raise ValueError(f"found a node of {len(texts[NodeField.OP_TYPE])} operators, expected one")
    return Node(
        op=texts[NodeField.OP_TYPE][0],
        domain="".join(texts[NodeField.DOMAIN]),
        inputs=tuple(texts[NodeField.INPUT]),
        outputs=tuple(texts[NodeField.OUTPUT]),
        attributes=attributes,
        texts=words,
        name="".join(texts[NodeField.NAME]),
    )


def read_initializer(reader: Reader, message: memoryview) -> Initializer:
    """Return what a TensorProto says; raises ValueError for what no export writes."""
    shape: list[int] = []
    data_type, name = 0, ""
    for number, value in reader.fields(message):
        if number == TensorField.DIMS:
            shape += [value] if isinstance(value, int) else packed(value)
        elif number == TensorField.DATA_TYPE:
            data_type = as_number(value)
        elif number == TensorField.NAME:
            name = as_text(value)
    if len(shape) > _SHAPE_LIMIT or any(size >> 63 for size in shape):
        raise ValueError(f"the initializer {name!r} has the shape {shape[:_SHAPE_LIMIT]}")
    if data_type not in _BITS:
        raise ValueError(f"the initializer {name!r} has the element type {data_type}")
    return Initializer(name, tuple(shape), _BITS[data_type], byte_range(reader, message, name))
