# mypy: ignore-errors
# onnxscript's `@script` rewrites these functions at import; a type checker sees Python that never
# runs.
"""Portable body of `ai.gptoss::MoEDispatchSeparate`: MoEDispatch's loop over the chosen experts,
which takes an expert's matrices from among those of all.

A function has a fixed number of inputs. So the body is written for one expert and spread to E: an
input that stands for a list becomes E inputs, wherever it is read.

Legend: N tokens, E experts, Hd hidden size, I expert width.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxscript import FLOAT, INT64, script
from onnxscript.onnx_opset import opset24 as op
from onnxscript.values import OnnxFunction

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.moe_bodies import (
    ActivatedHalves,
    ClampedSwiGLU,
    Routed,
    RoutedOverAll,
    WithExpert,
    gptoss,
)

_LISTS = {"gates": "gate", "ups": "up", "downs": "down"}  # input → the name of one of its matrices
_OPSET = 24
_ALL_ROWS = 2**31 - 1  # as the end of a Slice


def chosen(use):
    """Return the body of a node and the parts that it calls, callees first: name → function."""
    experts = (use.inputs - 2) // len(_LISTS)
    return {
        "ClampedSwiGLU": ClampedSwiGLU,
        "Activated": ActivatedHalves,
        "Routed": Routed if use.attribute("normalize") else RoutedOverAll,
        "WithExpert": WithExpert,
        "ExpertMatrices": ChoiceOf(experts),
        "MoEDispatchSeparate": SpreadTo(experts, MoEDispatchSeparate),
    }


@script(gptoss, default_opset=op)
def ExpertMatrices(expert: INT64, gates, ups, downs):  # noqa: N802
    """Return an expert's gate_up and down, of one: `ChoiceOf` is what bodies have in its place."""
    return op.Concat(gates, ups, axis=0), op.Identity(downs)


@script(gptoss, default_opset=op)
def MoEDispatchSeparate(  # noqa: N802
    hidden: FLOAT,
    router_logits: FLOAT,
    gates,
    ups,
    downs,
    top_k: int,
    alpha: float,
    limit: float,
    beta: float = 1.0,
    normalize: int = 1,
) -> FLOAT:
    """Loop over the experts that some token chose, on matrices that lie apart."""
    experts, shares = Routed(router_logits, top_k=top_k)
    visited, _first, _inverse, _counts = op.Unique(experts)
    no_bias = op.Constant(value_float=0.0)
    output = op.Sub(hidden, hidden)
    for step in range(op.Size(visited)):
        expert = op.Gather(visited, step)
        gate_up, down = ExpertMatrices(expert, gates, ups, downs)
        output = WithExpert(
            output,
            hidden,
            experts,
            shares,
            expert,
            op.Cast(gate_up, to=1),
            no_bias,
            op.Cast(down, to=1),
            no_bias,
            alpha=alpha,
            limit=limit,
            beta=beta,
            by_rows=1,
        )
    return output


@dataclass(frozen=True)
class ChoiceOf:
    """The function that takes one expert's gate_up (2I, Hd) and down (Hd, I) from those of all.

    Each matrix is sliced, to all of its rows if it is the expert's and else to none, and the slices
    are put together, gates before ups: so one expert is copied. A tree of `If` copies no more, but
    has two graphs a node, which ONNX Runtime takes long to open (docs/adr/0013). The ends of the
    slices come from `expert`, so no runtime can make them while it opens.
    """

    experts: int

    def to_function_proto(self) -> onnx.FunctionProto:
        """Return it in ONNX."""
        nodes = [
            _constant("all_experts", np.arange(self.experts)),
            _constant("all_rows", np.array(_ALL_ROWS)),
            _constant("first", np.array([0])),
            helper.make_node("Equal", ["all_experts", "expert"], ["is_it"]),
            helper.make_node("Cast", ["is_it"], ["once"], to=onnx.TensorProto.INT64),
            helper.make_node("Mul", ["once", "all_rows"], ["ends"]),  # (E)
            helper.make_node(
                "Split", ["ends"], self._names("end"), axis=0, num_outputs=self.experts
            ),
        ]
        rows = {name: self._names(f"{name}_rows") for name in _LISTS.values()}
        for name, slices in rows.items():
            nodes += [
                helper.make_node("Slice", [matrix, "first", end, "first"], [part])
                for matrix, end, part in zip(
                    self._names(name), self._names("end"), slices, strict=True
                )
            ]
        nodes.append(helper.make_node("Concat", rows["gate"] + rows["up"], ["gate_up"], axis=0))
        nodes.append(helper.make_node("Concat", rows["down"], ["down"], axis=0))
        inputs = [matrix for name in _LISTS.values() for matrix in self._names(name)]
        return helper.make_function(
            DOMAIN,
            ExpertMatrices.name,
            ["expert", *inputs],
            ["gate_up", "down"],
            nodes,
            [helper.make_opsetid("", _OPSET)],
        )

    def _names(self, name: str) -> list[str]:
        return [f"{name}_{expert}" for expert in range(self.experts)]


@dataclass(frozen=True)
class SpreadTo:
    """A function whose lists are as many inputs as there are experts."""

    experts: int
    function: OnnxFunction

    def to_function_proto(self) -> onnx.FunctionProto:
        """Return it in ONNX."""
        proto = self.function.to_function_proto()
        self._spread(proto.input)
        self._spread_nodes(proto.node)
        return proto

    def _spread_nodes(self, nodes) -> None:
        for node in nodes:
            self._spread(node.input)
            for attribute in node.attribute:
                self._spread_nodes(attribute.g.node)

    def _spread(self, names) -> None:
        spread = []
        for name in names:
            if name in _LISTS:
                spread += [f"{_LISTS[name]}_{expert}" for expert in range(self.experts)]
            else:
                spread.append(name)
        del names[:]
        names.extend(spread)


def _constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(array.astype(np.int64), name)
    return helper.make_node("Constant", [], [name], value=tensor)
