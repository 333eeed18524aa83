"""Labels: how a node is called in findings, by its layer and its op."""

from collections import Counter

import onnx

from gptoss_onnx.layer_names import LayerName, layer_of


class Labels:
    """The labels of the nodes of a graph, and of what they read and make.

    A node is `layers.3 MoEDispatchMXFP4` where its layer has one of its op, and otherwise
    `layers.3 self_attn.q_proj.Linear`, with its place in the layer.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        keys = (self._key(node) for node in graph.node)
        self._counts = Counter(key for key in keys if key is not None)
        self._readers: dict[str, str] = {}
        self._makers: dict[str, str] = {}
        for node in graph.node:
            label = self.of(node)
            for name in node.input:
                self._readers.setdefault(name, label)
            for name in node.output:
                self._makers.setdefault(name, label)

    def of(self, node: onnx.NodeProto) -> str:
        """Return the label of a node, of this graph or of one like it."""
        found, key = LayerName.of(node.name), self._key(node)
        if found is None or key is None:
            return node.name.removeprefix("model.") or f"a nameless {node.op_type}"
        is_alone = self._counts[key] <= 1 and found.place.endswith(node.op_type)
        return f"layers.{found.layer} {node.op_type if is_alone else found.place}"

    def reader(self, value: str) -> str:
        """Return the label of the first node that reads a value."""
        return self._readers.get(value, "graph")

    def maker(self, value: str) -> str:
        """Return the label of the node that makes a value."""
        return self._makers.get(value, "graph")

    def _key(self, node: onnx.NodeProto) -> tuple[int, str] | None:
        layer = layer_of(node.name)
        return None if layer is None else (layer, node.op_type)
