"""Edits that break a package: one attribute, constant, body or weight changed."""

import json
from pathlib import Path
from typing import Any

import onnx
from onnx import helper, numpy_helper

from support.stranger_graph import Edit


def node_named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """Return the node of the main graph that has this name."""
    return next(node for node in model.graph.node if node.name == name)


def attribute(node: str, **values: Any) -> Edit:
    """Return an edit that gives a node other values of attributes."""

    def edit(model: onnx.ModelProto) -> None:
        found = node_named(model, node)
        for name, value in values.items():
            kept = [entry for entry in found.attribute if entry.name != name]
            del found.attribute[:]
            found.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def reads(node: str, index: int, value: str) -> Edit:
    """Return an edit that lets a node read another value as its input `index`."""

    def edit(model: onnx.ModelProto) -> None:
        node_named(model, node).input[index] = value

    return edit


def constant(name: str, factor: float) -> Edit:
    """Return an edit that multiplies a constant that lies in the graph's file."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = next(entry for entry in model.graph.initializer if entry.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), name))

    return edit


def body(op: str, inner: str, into: str) -> Edit:
    """Return an edit that puts another op in the place of the first `inner` of a function body."""

    def edit(model: onnx.ModelProto) -> None:
        function = next(entry for entry in model.functions if entry.name == op)
        found = next(node for node in function.node if node.op_type == inner)
        found.op_type = into

    return edit


def fill_weight(file: Path, tensor: str, byte: int) -> None:
    """Overwrite all bytes of a tensor of a safetensors file."""
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    first, last = json.loads(content[8 : 8 + length])[tensor]["data_offsets"]
    begin = 8 + length
    content[begin + first : begin + last] = bytes([byte]) * (last - first)
    file.write_bytes(content)
