"""Graph pass of `export --dense int8`, and of GGUF's Q8_0: projections and lm_head become
LinearInt8.

Matches every Linear whose weight is that of attention, of a dense feed-forward layer or of lm_head
(or the embedding, where lm_head is tied to it) and whose input width is a multiple of 32, and gives
it 8-bit weights from a new file. Leaves alone: the router, the experts, the embedding's lookup,
biases, and projections of other widths, with the checkpoint's weights.

Q8_0 has the same blocks, and scales that float32 holds: such weights change their layout and no
value, whatever the options are.
"""

from collections.abc import Sequence

import onnx_ir as ir
from torch import Tensor

from gptoss_onnx.checkpoint.gguf.blocks import Q8Rows
from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.linear_int8 import BLOCK, quantize_int8
from gptoss_onnx.errors import CheckpointError, InputError
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import Conversion
from gptoss_onnx.exporter.nodes import make_node, replace
from gptoss_onnx.exporter.projections import Projection, find_projections, listed, load_rows
from gptoss_onnx.exporter.trace import attach_bodies
from gptoss_onnx.package import INT8_FILE
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.dense_int8 import int8_names

_ALIGNMENT = 64  # bytes, of the first tensor: where shapes allow it, rows begin with a cache line


def keep_q8_projections(model: ir.Model, checkpoint: Checkpoint) -> tuple[ComputedFile, ...]:
    """Rewrite, in place, the projections that are Q8_0 in the checkpoint; returns the file that is
    to hold their weights, if there are any.
    """
    matches = find_projections(model, checkpoint)
    chosen = [match for match in matches if _is_q8(match)]
    return (_convert(model, checkpoint, chosen),) if chosen else ()


def convert_projections(
    model: ir.Model, checkpoint: Checkpoint
) -> tuple[tuple[str, ...], ComputedFile]:
    """Rewrite `model` in place; returns what was rounded, as the manifest says it, and the file
    that is to hold the weights.

    Raises InputError if no projection has an input width that is a multiple of 32. To compute the
    file raises CheckpointError where a weight is not finite.
    """
    matches = find_projections(model, checkpoint)
    chosen = [match for match in matches if match.depth % BLOCK == 0]
    if not chosen:
        widths = ", ".join(map(str, sorted({match.depth for match in matches})))
        raise InputError(
            f"--dense int8: found input widths {widths}, expected a multiple of {BLOCK} for at "
            "least one projection; export with --dense checkpoint"
        )
    left = [match for match in matches if match not in chosen]
    rounded = [match for match in chosen if not _is_q8(match)]
    return _describe(rounded, left), _convert(model, checkpoint, chosen)


def _convert(model: ir.Model, checkpoint: Checkpoint, chosen: Sequence[Projection]) -> ComputedFile:
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
        doing="writing the dense weights in int8",
        alignment=_ALIGNMENT,
    )
    attach_bodies(model)
    return file


def quantizing(
    checkpoint: Checkpoint, parameter: Parameter, projection: str, transposed: bool = False
) -> Conversion:
    """Return how a projection's weight (R, C) becomes int8 (R, C) with float32 scales (R, C/32);
    one in Q8_0 keeps its own.

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
        if isinstance(parameter.computed, Q8Rows):
            return parameter.computed.codes(checkpoint, first, end)
        weight = load_rows(checkpoint, parameter, transposed, first, end)
        quantized, scales = quantize_int8(weight)
        if not scales.isfinite().all():
            raise CheckpointError(
                f"{parameter.name}: not finite in rows {first} to {end - 1}: int8 cannot hold it"
            )
        return quantized, scales

    return Conversion(planned, rows, depth, convert)


def _is_q8(projection: Projection) -> bool:
    return isinstance(projection.parameter.computed, Q8Rows)


def _describe(rounded: list[Projection], left: list[Projection]) -> tuple[str, ...]:
    if not rounded:
        return ()
    text = f"{listed(rounded)} in int8 (block {BLOCK})"
    if left:
        text += (
            f"; {listed(left)} as in the checkpoint, whose input width is no multiple of {BLOCK}"
        )
    return (text,)
