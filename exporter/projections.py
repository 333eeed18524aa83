"""Projections of a traced graph: the Linear nodes whose weights `export --dense` may give another
form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.dense_int8 import LM_HEAD

# Modules of the decoder, and what the manifest calls them.
_KINDS = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "qkv_proj": "qkv",
    "o_proj": "o",
    "gate_proj": "gate",
    "up_proj": "up",
    "gate_up_proj": "gate_up",
    "down_proj": "down",
    LM_HEAD: LM_HEAD,
}
_EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True)
class Projection:
    """A Linear node whose weight is that of attention, of a dense feed-forward layer or of lm_head
    (or the embedding, where lm_head is tied to it).

    Attributes:
        node: of the graph.
        name: of the module.
        kind: what people call it.
        parameter: its weight.
    """

    node: ir.Node
    name: str
    kind: str
    parameter: Parameter

    @property
    def transposed(self) -> bool:
        """Whether the weight lies as (in, out)."""
        attribute = self.node.attributes.get("transposed")
        return attribute is not None and attribute.as_int() == 1

    @property
    def rows(self) -> int:
        """The output width."""
        return self.parameter.shape[1 if self.transposed else 0]

    @property
    def depth(self) -> int:
        """The input width."""
        return self.parameter.shape[0 if self.transposed else 1]


def load_rows(
    checkpoint: Checkpoint, parameter: Parameter, transposed: bool, first: int, end: int
) -> Tensor:
    """Return rows of a projection's weight, (end − first, in), also where it lies as (in, out)."""
    if not transposed:
        return checkpoint.load_rows(parameter, first, end)
    return checkpoint.load_rows(parameter, 0, parameter.shape[0]).T[first:end]


def find_projections(model: ir.Model, checkpoint: Checkpoint) -> list[Projection]:
    """Return all projections of a graph, in its order."""
    canonical = {parameter.name: name for name, parameter in checkpoint.parameters.items()}
    return [found for node in model.graph for found in _match(node, checkpoint, canonical)]


def listed(projections: Sequence[Projection]) -> str:
    """Return which kinds there are: `q, k, v, o and lm_head`."""
    kinds = [kind for kind in _KINDS.values() if any(found.kind == kind for found in projections)]
    return " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def _match(node: ir.Node, checkpoint: Checkpoint, canonical: Mapping[str, str]) -> list[Projection]:
    """Return the match of a node, if any; `canonical` has the decoder's name of each parameter."""
    if node.domain != DOMAIN or node.op_type != "Linear":
        return []
    weight = node.inputs[1]
    assert weight is not None
    assert weight.name is not None
    projection = canonical[weight.name].removesuffix(".weight")
    name = LM_HEAD if projection == _EMBEDDING else projection
    kind = _KINDS.get(name.rpartition(".")[2])
    return [] if kind is None else [Projection(node, name, kind, checkpoint.named[weight.name])]
