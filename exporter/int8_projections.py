"""Graph pass of `export --dense int8`: projections and lm_head become LinearInt8.

Matches every Linear whose weight is that of attention, of a dense feed-forward layer or of lm_head
(or the embedding, where lm_head is tied to it) and whose input width is a multiple of 32, and gives
it 8-bit weights from a new file. Leaves alone: the router, the experts, the embedding's lookup,
biases, and projections of other widths, with the checkpoint's weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.linear_int8 import BLOCK, quantize_int8
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import Conversion
from gptoss_onnx.exporter.nodes import make_node, replace
from gptoss_onnx.exporter.trace import attach_bodies
from gptoss_onnx.package import INT8_FILE
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.dense_int8 import LM_HEAD, int8_names

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
_ALIGNMENT = 64  # bytes, of the first tensor: where shapes allow it, rows begin with a cache line


@dataclass(frozen=True)
class _Match:
    node: ir.Node
    name: str  # of the projection
    kind: str
    parameter: Parameter

    @property
    def transposed(self) -> bool:
        """Whether the weight lies as (in, out)."""
        attribute = self.node.attributes.get("transposed")
        return attribute is not None and attribute.as_int() == 1

    @property
    def depth(self) -> int:
        """The input width."""
        return self.parameter.shape[0 if self.transposed else 1]


def convert_projections(model: ir.Model, checkpoint: Checkpoint) -> tuple[str, ComputedFile]:
    """Rewrite `model` in place; returns what was done, as the manifest says it, and the file that
    is to hold the weights.

    Raises InputError if no projection has an input width that is a multiple of 32. To compute the
    file raises CheckpointError where a weight is not finite.
    """
    canonical = {parameter.name: name for name, parameter in checkpoint.parameters.items()}
    matches = [match for node in model.graph for match in _match(node, checkpoint, canonical)]
    chosen = [match for match in matches if match.depth % BLOCK == 0]
    if not chosen:
        widths = ", ".join(map(str, sorted({match.depth for match in matches})))
        raise InputError(
            f"--dense int8: found input widths {widths}, expected a multiple of {BLOCK} for at "
            "least one projection; export with --dense checkpoint"
        )
    weights = ComputedWeights()
    for match in chosen:
        hidden, _, *bias = match.node.inputs  # no bias, or an omitted one, or one
        conversion = quantizing(checkpoint, match.parameter, match.name, match.transposed)
        operands = weights.add(model.graph, conversion)
        new = make_node(match.node, "LinearInt8", [hidden, *operands, *bias], domain=DOMAIN)
        replace(model.graph, match.node, [new])
    file = weights.lay_out(
        INT8_FILE,
        what="the int8 weights",
        doing="quantizing the dense weights to int8",
        alignment=_ALIGNMENT,
    )
    attach_bodies(model)
    left = [match for match in matches if match not in chosen]
    return _describe(chosen, left), file


def quantizing(
    checkpoint: Checkpoint, parameter: Parameter, projection: str, transposed: bool = False
) -> Conversion:
    """Return how a projection's weight (R, C) becomes int8 (R, C) with float32 scales (R, C/32).

    Args:
        checkpoint: where the weight is.
        parameter: the weight.
        projection: what the new tensors are named after.
        transposed: the weight lies as (C, R).
    """
    rows, depth = reversed(parameter.shape) if transposed else parameter.shape
    codes, factors = int8_names(projection)
    planned = (
        PlannedTensor(codes, "I8", (rows, depth)),
        PlannedTensor(factors, "F32", (rows, depth // BLOCK)),
    )

    def convert(first: int, end: int) -> Sequence[Tensor]:
        if transposed:
            weight = checkpoint.load_rows(parameter, 0, depth).T[first:end]
        else:
            weight = checkpoint.load_rows(parameter, first, end)
        quantized, scales = quantize_int8(weight)
        if not scales.isfinite().all():
            raise CheckpointError(
                f"{parameter.name}: not finite in rows {first} to {end - 1}: int8 cannot hold it"
            )
        return quantized, scales

    return Conversion(planned, rows, depth, convert)


def _match(node: ir.Node, checkpoint: Checkpoint, canonical: Mapping[str, str]) -> list[_Match]:
    """Return the match of a node, if any; `canonical` has the decoder's name of each parameter."""
    if node.domain != DOMAIN or node.op_type != "Linear":
        return []
    weight = node.inputs[1]
    assert weight is not None
    assert weight.name is not None
    projection = canonical[weight.name].removesuffix(".weight")
    name = LM_HEAD if projection == _EMBEDDING else projection
    kind = _KINDS.get(name.rpartition(".")[2])
    return [] if kind is None else [_Match(node, name, kind, checkpoint.named[weight.name])]


def _describe(chosen: list[_Match], left: list[_Match]) -> str:
    text = f"{_listed(chosen)} in int8 (block {BLOCK})"
    if left:
        text += (
            f"; {_listed(left)} as in the checkpoint, whose input width is no multiple of {BLOCK}"
        )
    return text


def _listed(matches: list[_Match]) -> str:
    kinds = [kind for kind in _KINDS.values() if any(match.kind == kind for match in matches)]
    return " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
