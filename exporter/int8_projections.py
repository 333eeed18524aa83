"""Graph pass of `export --dense int8`: the projections of attention and lm_head become LinearInt8.

Matches every Linear whose weight is that of q_proj, k_proj, v_proj, o_proj or lm_head (or the
embedding, where lm_head is tied to it) and whose input width is a multiple of 32, and gives it
8-bit weights from a new file. Leaves alone: the router, the experts, the embedding's lookup,
biases, and projections of other widths, with the checkpoint's weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from torch import Tensor

from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.linear_int8 import BLOCK, quantize_int8
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.exporter.computed_weights import ComputedWeights, Conversion
from gptoss_onnx.exporter.nodes import make_node, replace
from gptoss_onnx.exporter.trace import attach_bodies
from gptoss_onnx.package import INT8_FILE
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.dense_int8 import LM_HEAD, int8_names

_KINDS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", LM_HEAD: LM_HEAD}
_EMBEDDING = "model.embed_tokens"
_ALIGNMENT = 64  # bytes, of the first tensor: where shapes allow it, rows begin with a cache line


@dataclass(frozen=True)
class _Match:
    node: ir.Node
    name: str  # of the projection
    kind: str
    source: TensorInfo

    @property
    def depth(self) -> int:
        """The input width."""
        return self.source.shape[1]


def convert_projections(
    model: ir.Model, checkpoint: Checkpoint, folder: Path, progress: Progress
) -> str:
    """Rewrite `model` in place and write the weights into `folder`; returns what was done, as the
    manifest says it.

    `progress` hears how many bytes are written.

    Raises:
        InputError: no projection has an input width that is a multiple of 32.
        PackageError, CheckpointError: as from `ComputedWeights.write`; a weight is not finite.
    """
    matches = [match for node in model.graph for match in _match(node, checkpoint)]
    chosen = [match for match in matches if match.depth % BLOCK == 0]
    if not chosen:
        widths = ", ".join(map(str, sorted({match.depth for match in matches})))
        raise InputError(
            f"--dense int8: found input widths {widths}, expected a multiple of {BLOCK} for at "
            "least one of q, k, v, o "
            "and lm_head; export with --dense checkpoint"
        )
    weights = ComputedWeights()
    for match in chosen:
        hidden, _, *bias = match.node.inputs  # no bias, or an omitted one, or one
        operands = weights.add(model.graph, quantizing(checkpoint, match.source.name, match.name))
        new = make_node(match.node, "LinearInt8", [hidden, *operands, *bias], domain=DOMAIN)
        replace(model.graph, match.node, [new])
    weights.write(
        folder / INT8_FILE,
        what="the int8 weights",
        doing="quantizing the dense weights to int8",
        alignment=_ALIGNMENT,
        progress=progress,
    )
    attach_bodies(model)
    left = [match for match in matches if match not in chosen]
    return _describe(chosen, left)


def quantizing(checkpoint: Checkpoint, source: str, projection: str) -> Conversion:
    """Return how a projection's weight (R, C) becomes int8 (R, C) with float32 scales (R, C/32).

    Args:
        checkpoint: where the weight is.
        source: its name there.
        projection: what the new tensors are named after.
    """
    rows, depth = checkpoint.tensors[source].shape
    weight, scales = int8_names(projection)
    planned = (
        PlannedTensor(weight, "I8", (rows, depth)),
        PlannedTensor(scales, "F32", (rows, depth // BLOCK)),
    )

    def convert(first: int, end: int) -> Sequence[Tensor]:
        quantized, scales = quantize_int8(checkpoint.load(source)[first:end])
        if not scales.isfinite().all():
            raise CheckpointError(
                f"{source}: not finite in rows {first} to {end - 1}: int8 cannot hold it"
            )
        return quantized, scales

    return Conversion(planned, rows, depth, convert)


def _match(node: ir.Node, checkpoint: Checkpoint) -> list[_Match]:
    if node.domain != DOMAIN or node.op_type != "Linear":
        return []
    weight = node.inputs[1]
    assert weight is not None
    assert weight.name is not None
    projection = weight.name.removesuffix(".weight")
    name = LM_HEAD if projection == _EMBEDDING else projection
    kind = _KINDS.get(name.rpartition(".")[2])
    return [] if kind is None else [_Match(node, name, kind, checkpoint.tensors[weight.name])]


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
