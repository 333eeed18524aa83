"""Pair the parts of two graphs by their names, and write attributes and types in one line."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import onnx

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.schemas import SIGNATURES
from gptoss_onnx.validation.comparison.tensors import type_name

Part = TypeVar("Part")


def paired(
    found: Iterable[Part], expected: Iterable[Part], key: Callable[[Part], str]
) -> Iterator[tuple[str, Part | None, Part | None]]:
    """Yield each name with the part found and the one expected, None where there is no such.

    Those expected come first, in their order. A second part of one name is one of its own.
    """
    ours, theirs = (_by_name(parts, key) for parts in (found, expected))
    for name, occurrence in [*theirs, *(place for place in ours if place not in theirs)]:
        place = (name, occurrence)
        said = name if occurrence == 1 else f"{name} ({occurrence})"
        yield said, ours.get(place), theirs.get(place)


def _by_name(parts: Iterable[Part], key: Callable[[Part], str]) -> dict[tuple[str, int], Part]:
    seen: Counter[str] = Counter()
    named = {}
    for part in parts:
        name = key(part)
        seen[name] += 1
        named[name, seen[name]] = part
    return named


def by_name(node: onnx.NodeProto) -> str:
    """Return what a node of a graph is known by."""
    return node.name or by_output(node)


def by_output(node: onnx.NodeProto) -> str:
    """Return what a node of a function is known by, whose nodes have no names of their own."""
    return next((name for name in node.output if name), node.name)


def input_name(node: onnx.NodeProto, index: int) -> str:
    """Return what an input of a node is called: by its number, and its name where we gave one."""
    signature = SIGNATURES.get(node.op_type) if node.domain == DOMAIN else None
    if signature is None or index >= len(signature.inputs):
        return f"input {index}"
    return f"input {index} ({signature.inputs[index].name})"


def attribute_text(attribute: onnx.AttributeProto | None) -> str:
    """Return the value of an attribute that holds neither a graph nor a tensor."""
    if attribute is None:
        return "missing"
    if attribute.ref_attr_name:
        return f"the attribute {attribute.ref_attr_name} of the call"
    kinds = onnx.AttributeProto
    if attribute.type == kinds.FLOAT:
        return str(np.float32(attribute.f))
    if attribute.type == kinds.FLOATS:
        return str([float(str(np.float32(value))) for value in attribute.floats])
    if attribute.type == kinds.INT:
        return str(attribute.i)
    if attribute.type == kinds.INTS:
        return str(list(attribute.ints))
    if attribute.type == kinds.STRING:
        return attribute.s.decode(errors="replace")
    if attribute.type == kinds.STRINGS:
        return str([text.decode(errors="replace") for text in attribute.strings])
    return f"a value of type {attribute.type}"


def value_text(value: onnx.ValueInfoProto | None) -> str:
    """Return the type of a graph's value: `float[batch, 2, capacity, 64]`."""
    if value is None:
        return "missing"
    if not value.type.HasField("tensor_type"):
        return value.type.WhichOneof("value") or "no type"
    tensor = value.type.tensor_type
    sizes = [
        size.dim_param or (str(size.dim_value) if size.HasField("dim_value") else "?")
        for size in tensor.shape.dim
    ]
    shape = f"[{', '.join(sizes)}]" if tensor.HasField("shape") else " of any shape"
    return f"{type_name(tensor.elem_type)}{shape}"
