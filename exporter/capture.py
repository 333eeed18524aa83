"""Capture a call of the reference as a program of few torch ops, each of which has a translation.

`torch.onnx.export` would take any program and trace it twice more, to decompose it into such ops:
most of its time. The reference uses so few others that they are rewritten here one by one, into the
very ops that its decomposition gives; a test holds the two graphs equal, byte for byte. Where the
reference comes to use another op that has no translation, torch names it, and it goes here too.

Legend: B batch, S new tokens, T kept positions.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

_ATEN = torch.ops.aten
# What torch checks while it traces; a graph of ONNX has no place for it.
_CHECKS = (_ATEN._assert_tensor_metadata.default, _ATEN._assert_scalar.default)


def capture(model: torch.nn.Module, example: tuple[Any, ...], shapes: Any) -> ExportedProgram:
    """Return the program of one call, ready to be translated node by node.

    Args:
        model: the reference, on the meta device.
        example: its arguments: the ids (B, S), two lengths (B), positions (B, T) and caches.
        shapes: the symbolic dimensions of each argument.
    """
    program = torch.export.export(model, example, dynamic_shapes=shapes, strict=False)
    graph = program.graph
    for node in list(graph.nodes):
        if node.target in _CHECKS:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    sizes = _Sizes(graph)
    for node in list(graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is not None:
            rewrite(node, sizes)
    sizes.drop_unused()
    # torch.onnx.export would decompose it now, and finds it done
    program.run_decompositions = lambda *_, **__: program
    return program


class _Sizes:
    """The nodes that give B, S and T, each read from one input, before all other nodes."""

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        inputs = {node.name: node for node in graph.nodes if node.op == "placeholder"}
        read = (("input_ids", 1), ("logit_positions", 1), ("past_lengths", 0))
        self._of: dict[Any, fx.Node] = {}
        first = next(node for node in graph.nodes if node.op != "placeholder")
        with graph.inserting_before(first):
            for name, dimension in read:
                size = inputs[name].meta["val"].shape[dimension]
                node = graph.call_function(_ATEN.sym_size.int, (inputs[name], dimension))
                node.meta["val"] = size
                self._of[size.node.expr] = node
        for node in list(graph.nodes):
            known = node.target is _ATEN.sym_size.int and self._of.get(node.meta["val"].node.expr)
            if known and node is not known:
                node.replace_all_uses_with(known)
                graph.erase_node(node)

    def of(self, shape: torch.Size, reader: fx.Node) -> list[fx.Node | int]:
        """Return the sizes of a shape; a product of two is computed before its first reader."""
        return [size if isinstance(size, int) else self._node(size, reader) for size in shape]

    def _node(self, size: torch.SymInt, reader: fx.Node) -> fx.Node:
        expression = size.node.expr
        if expression not in self._of:
            factors = [self._of[factor] for factor in expression.args]
            with self._graph.inserting_before(reader):
                self._of[expression] = self._graph.call_function(operator.mul, tuple(factors))
            self._of[expression].meta["val"] = size
        return self._of[expression]

    def drop_unused(self) -> None:
        """Erase those that no node reads."""
        for node in reversed(self._of.values()):
            if not node.users:
                self._graph.erase_node(node)


def _cast(node: fx.Node, _: _Sizes) -> None:
    source, dtype = node.args
    assert isinstance(source, fx.Node)
    if source.meta["val"].dtype == dtype:
        node.replace_all_uses_with(source)
        node.graph.erase_node(node)
    else:
        node.target, node.args, node.kwargs = _ATEN._to_copy.default, (source,), {"dtype": dtype}


def _view(node: fx.Node, sizes: _Sizes) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if not source.meta["val"].is_contiguous():  # no view in torch; in ONNX it makes no difference
        with node.graph.inserting_before(node):
            copy = node.graph.call_function(_ATEN.clone.default, (source,))
        copy.meta = {**source.meta, "val": source.meta["val"].contiguous()}
        source = copy
    node.target, node.args = _ATEN.view.default, (source, sizes.of(node.meta["val"].shape, node))


def _split(node: fx.Node, _: _Sizes) -> None:
    source, _count, dimension = node.args
    size = node.meta["val"][0].shape[dimension]
    node.target, node.args = _ATEN.split.Tensor, (source, size, dimension)


# Each changes its node in place: the program knows its outputs by the names of their nodes.
_REWRITES: dict[Any, Callable[[fx.Node, _Sizes], None]] = {
    _ATEN.to.dtype: _cast,
    _ATEN.flatten.using_ints: _view,
    _ATEN.unflatten.int: _view,
    _ATEN.chunk.default: _split,
}
