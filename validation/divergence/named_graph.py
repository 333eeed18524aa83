"""What belongs to which module of the reference in a package's graph: the exporter names a node
after its module and its op, `model.layers.0.self_attn.q_proj.Linear`, in every target.
"""

import re
from collections.abc import Collection, Iterator

import onnx

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.exporter.nodes import CONTRIB
from gptoss_onnx.layer_names import LayerName

# They hand values on. A Where blanks the padding behind an attention of target ort.
PASSING = frozenset(("Reshape", "Identity", "Cast", "Transpose", "Unsqueeze", "Squeeze", "Where"))
# They are what a few nodes are there for; the others prepare their inputs or finish their results.
CENTRAL = frozenset(
    ("Gemm", "MatMul", "Scan", "RMSNormalization", "LayerNormalization", "Cos", "Sin")
)
_PART = re.compile(r"(?:self_attn|mlp)\.")
_DEPTH = 20  # graphs inside the nodes of graphs
_MOST_WALKED = 10_000  # nodes


class NamedGraph:
    """The nodes of a graph by the modules that they are named after."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._nodes = list(graph.node)
        self._makers = {name: node for node in graph.node for name in node.output if name}

    def result(self, module: str) -> str | None:
        """Return the value that a module gives: the last that its own nodes do not read.

        A Split of it, which the optimizer counts among them, is no part of the module.
        """
        nodes = [node for node in self._within(module) if node.op_type != "Split"]
        read = {name for node in nodes for name in _read(node)}
        results = [node.output[0] for node in nodes if node.output[0] not in read]
        return str(results[-1]) if results else None

    def entry(self, module: str) -> str | None:
        """Return the value that a module takes: the first that a node outside of it computes."""
        for node in self._within(module):
            for name in _read(node):
                maker = self._makers.get(name)
                if maker is not None and not _is_within(maker, module):
                    return name
        return None

    def operand(self, op: str, module: str, index: int) -> str | None:
        """Return what the first node of this op in a module reads as its input `index`."""
        for node in self._within(module):
            if node.op_type == op and index < len(node.input) and node.input[index]:
                return str(node.input[index])
        return None

    def maker(self, value: str, known: Collection[str]) -> onnx.NodeProto | None:
        """Return the node that a value is named after: of those between it and the `known` values
        the one of a custom op, else one of a central op, else the last that computes anything.
        """
        nodes = list(self._behind(value, known))
        for matters in (_is_custom, _is_central, _computes):
            found = next(filter(matters, nodes), None)
            if found is not None:
                return found
        return self._makers.get(value)

    def of_layer(self, layer: int, op: str) -> list[onnx.NodeProto]:
        """Return the nodes of one op in a layer."""
        return [node for node in self._within(f"model.layers.{layer}") if node.op_type == op]

    def layer_of(self, value: str) -> int | None:
        """Return the layer whose node computes a value."""
        node = self._makers.get(value)
        return None if node is None else place(node)[0]

    def _behind(self, value: str, known: Collection[str]) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that a value is computed by, from the last one on, back to `known`."""
        queue, seen = [value], {value}
        for name in queue:
            node = self._makers.get(name)
            if node is None or len(seen) > _MOST_WALKED:
                continue
            yield node
            queue += [other for other in _read(node) if other not in seen and other not in known]
            seen.update(_read(node))

    def _within(self, module: str) -> list[onnx.NodeProto]:
        return [node for node in self._nodes if _is_within(node, module)]


def place(node: onnx.NodeProto) -> tuple[int | None, str]:
    """Return the layer of a node and what it is called there, see `place_of`."""
    return place_of(node.name or node.op_type)


def place_of(name: str) -> tuple[int | None, str]:
    """Return the layer of the node of this name, None if it is of no layer, and what it is called
    there: `SinkAttention`, `q_proj.Linear`, `input_layernorm.RMSNormalization`.
    """
    found = LayerName.of(name)
    if found is None:
        return None, name.removeprefix("model.")
    return found.layer, _PART.sub("", found.place, count=1)


def _is_custom(node: onnx.NodeProto) -> bool:
    return node.domain in (DOMAIN, CONTRIB)


def _is_central(node: onnx.NodeProto) -> bool:
    return node.op_type in CENTRAL


def _computes(node: onnx.NodeProto) -> bool:
    return node.op_type not in PASSING


def _is_within(node: onnx.NodeProto, module: str) -> bool:
    return node.name.startswith(f"{module}.")


def _read(node: onnx.NodeProto, depth: int = 0) -> list[str]:
    """Return what a node reads, also what graphs inside of it take from outside."""
    names = [name for name in node.input if name]
    if depth > _DEPTH:
        return names
    for attribute in node.attribute:
        if attribute.HasField("g"):
            inner = attribute.g
            own = {value.name for value in (*inner.input, *inner.initializer)}
            own.update(name for each in inner.node for name in each.output)
            names += [
                name for each in inner.node for name in _read(each, depth + 1) if name not in own
            ]
    return names
