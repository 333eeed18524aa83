"""ModelDifferences: everything in which a model differs from the one expected.

Nodes, initializers and functions are paired by their names, so that their order does not count.
Every field of ONNX is compared but for texts about a model: what this file does not know of by
name is compared all the same.
"""

from collections.abc import Collection, MutableSequence, Sequence
from typing import Any

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]  # ships no stubs

from gptoss_onnx.validation.comparison.findings import Findings
from gptoss_onnx.validation.comparison.labels import Labels
from gptoss_onnx.validation.comparison.pairing import (
    attribute_text,
    by_name,
    by_output,
    input_name,
    paired,
    value_text,
)
from gptoss_onnx.validation.comparison.tensors import tensor_differences

# What a model says about itself; nothing computes with it.
_ABOUT = {"doc_string", "metadata_props", "producer_name", "producer_version", "model_version"}
_MISSING = "missing"


class ModelDifferences:
    """Compares two models and adds what differs to `findings`; `labels` are of the expected."""

    def __init__(self, findings: Findings, labels: Labels) -> None:
        self._findings = findings
        self._labels = labels

    def compare(self, found: onnx.ModelProto, expected: onnx.ModelProto) -> None:
        """Compare everything but external data."""
        self._others("graph", "", found, expected, {"graph", "functions", "opset_import"})
        self._opsets("graph", found, expected)
        self._graph(None, "", found.graph, expected.graph)
        for name, ours, theirs in paired(found.functions, expected.functions, _function_name):
            where = f"body of {name}"
            if ours is None or theirs is None:
                self._findings.add(where, "function", *_there(ours, theirs, "a function"))
            else:
                self._function(where, ours, theirs)

    def _function(
        self, where: str, found: onnx.FunctionProto, expected: onnx.FunctionProto
    ) -> None:
        handled = {"node", "opset_import", "attribute_proto"}
        self._others(where, "", found, expected, handled)
        self._opsets(where, found, expected)
        pairs = paired(found.attribute_proto, expected.attribute_proto, lambda a: a.name)
        for name, ours, theirs in pairs:
            self._attribute(where, f"default of {name}", ours, theirs)
        for name, node, wanted in paired(found.node, expected.node, by_output):
            self._node(where, name, node, wanted)

    def _graph(
        self, where: str | None, prefix: str, found: onnx.GraphProto, expected: onnx.GraphProto
    ) -> None:
        """Compare the main graph, or one inside the node `where`."""
        handled = {"node", "initializer", "input", "output", "value_info"}
        self._others(where or "graph", prefix, found, expected, handled)
        for kind in ("input", "output"):
            ours, theirs = getattr(found, kind), getattr(expected, kind)
            for name, value, wanted in paired(ours, theirs, lambda v: v.name):
                self._texts(where or "graph", f"{prefix}{kind} {name}", value, wanted)
            orders = [[value.name for value in values] for values in (ours, theirs)]
            if orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]):
                self._findings.add(where or "graph", f"{prefix}order of {kind}s", *orders)
        for name, value, wanted in paired(found.value_info, expected.value_info, lambda v: v.name):
            at = where or self._labels.maker(name)
            self._texts(at, f"{prefix}type of {name}", value, wanted)
        for name, node, meant in paired(found.node, expected.node, by_name):
            some = meant or node
            assert some is not None
            at, place = (self._labels.of(some), "") if where is None else (where, prefix + name)
            self._node(at, place, node, meant)
        for name, tensor, right in paired(
            found.initializer, expected.initializer, lambda t: t.name
        ):
            self._initializer(where or self._labels.reader(name), f"{prefix}{name}", tensor, right)

    def _node(
        self, where: str, place: str, found: onnx.NodeProto | None, expected: onnx.NodeProto | None
    ) -> None:
        """Compare the node that is `where`, or the one at a place in it."""
        if found is None or expected is None:
            there = _there(
                None if found is None else _called(found),
                None if expected is None else _called(expected),
            )
            self._findings.add(where, f"{place} node".lstrip(), *there)
            return
        prefix = f"{place} {expected.op_type}: " if place else ""
        if (found.op_type, found.domain) != (expected.op_type, expected.domain):
            self._findings.add(where, f"{prefix}op", _op(found), _op(expected))
        self._operands(where, prefix, found, expected)
        for key, ours, theirs in paired(found.attribute, expected.attribute, lambda a: a.name):
            self._attribute(where, f"{prefix}{key}", ours, theirs)
        handled = {"op_type", "domain", "input", "output", "attribute"}
        self._others(where, prefix, found, expected, handled)

    def _operands(
        self, where: str, prefix: str, found: onnx.NodeProto, expected: onnx.NodeProto
    ) -> None:
        for index, names in _side_by_side(found.input, expected.input):
            self._findings.add(where, f"{prefix}{input_name(expected, index)}", *names)
        for index, names in _side_by_side(found.output, expected.output):
            self._findings.add(where, f"{prefix}output {index}", *names)

    def _attribute(
        self,
        where: str,
        what: str,
        found: onnx.AttributeProto | None,
        expected: onnx.AttributeProto | None,
    ) -> None:
        if found is not None and expected is not None:
            if _differing(found, expected, {"g", "graphs", "t", "tensors"}):
                texts = attribute_text(found), attribute_text(expected)
                same = "another kind of value" if texts[0] == texts[1] else texts[0]
                self._findings.add(where, what, same, texts[1])
            if found.HasField("t") and expected.HasField("t"):
                self._initializer(where, what, found.t, expected.t)
            if found.HasField("g") and expected.HasField("g"):
                self._graph(where, f"{what}: ", found.g, expected.g)
            handled = set(found.DESCRIPTOR.fields_by_name) - {"graphs", "tensors"}
            self._others(where, f"{what}: ", found, expected, handled)
        else:
            self._findings.add(where, what, attribute_text(found), attribute_text(expected))

    def _initializer(
        self,
        where: str,
        name: str,
        found: onnx.TensorProto | None,
        expected: onnx.TensorProto | None,
    ) -> None:
        if found is None or expected is None:
            self._findings.add(where, name, *_there(found, expected, "a constant"))
            return
        for what, ours, theirs in tensor_differences(found, expected):
            self._findings.add(where, f"{name}: {what}", ours, theirs)

    def _texts(
        self,
        where: str,
        what: str,
        found: onnx.ValueInfoProto | None,
        expected: onnx.ValueInfoProto | None,
    ) -> None:
        ours, theirs = value_text(found), value_text(expected)
        if ours != theirs:
            self._findings.add(where, what, ours, theirs)

    def _opsets(self, where: str, found: Any, expected: Any) -> None:
        """Compare the versions of the op sets that two models or functions import."""
        pairs = paired(found.opset_import, expected.opset_import, lambda entry: entry.domain)
        for domain, ours, theirs in pairs:
            versions = [_MISSING if entry is None else entry.version for entry in (ours, theirs)]
            if versions[0] != versions[1]:
                self._findings.add(where, f"opset of {domain or 'ai.onnx'}", *versions)

    def _others(
        self, where: str, prefix: str, found: Message, expected: Message, handled: Collection[str]
    ) -> None:
        """Compare all fields but those that are handled elsewhere."""
        for name in _differing(found, expected, handled):
            ours, theirs = (getattr(message, name) for message in (found, expected))
            self._findings.add(where, f"{prefix}{name}", _brief(ours), _brief(theirs))


def _differing(found: Message, expected: Message, handled: Collection[str]) -> list[str]:
    """Return the names of the fields whose values differ, set or by default."""
    names = [name for name in found.DESCRIPTOR.fields_by_name if name not in _ABOUT]
    return [
        name
        for name in names
        if name not in handled and _bits(found, name) != _bits(expected, name)
    ]


def _bits(message: Message, name: str) -> object:
    """Return what tells a field's values apart, NaNs too."""
    value = getattr(message, name)
    parts = list(value) if isinstance(value, MutableSequence) else [value]
    return [
        part.SerializeToString(deterministic=True) if isinstance(part, Message) else repr(part)
        for part in parts
    ]


def _brief(value: object) -> str:
    text = str(list(value) if isinstance(value, MutableSequence) else value)
    return " ".join(text[:1000].split()) or "nothing"


def _side_by_side(
    found: Sequence[str], expected: Sequence[str]
) -> list[tuple[int, tuple[str, str]]]:
    """Return the places at which two lists of names differ, with both names."""
    count = max(len(found), len(expected))
    ours, theirs = ([*names, *[""] * (count - len(names))] for names in (found, expected))
    pairs = list(enumerate(zip(ours, theirs, strict=True)))
    return [(i, (a or "none", b or "none")) for i, (a, b) in pairs if a != b]


def _there(found: object, expected: object, what: str = "") -> tuple[str, str]:
    """Return the texts for what is there on one side alone."""
    ours, theirs = (what or str(part) for part in (found, expected))
    return (_MISSING if found is None else ours, "none" if expected is None else theirs)


def _called(node: onnx.NodeProto) -> str:
    return f"{_op(node)} {by_name(node)}"


def _op(node: onnx.NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _function_name(function: onnx.FunctionProto) -> str:
    """Return the name of a function, with its domain where that is not ours."""
    return ".".join(filter(None, (function.name, function.overload)))
