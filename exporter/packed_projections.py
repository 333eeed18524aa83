"""Graph pass of `export --dense packed`: projections and lm_head become LinearPacked, without loss.

Matches the projections of projections.py in bfloat16 whose input width is a multiple of 64 and of
whose weights at most one in a hundred is an exception. Leaves all other weights alone. How many
exceptions there are, nobody knows who has not read the weights: the pass reads them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from gptoss_onnx.checkpoint.tensors import TORCH_DTYPES
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.linear_packed import BLOCK, list_exceptions, pack_planes
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter.computed_file import ComputedFile
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import PIECE, Conversion
from gptoss_onnx.exporter.nodes import make_node, replace
from gptoss_onnx.exporter.projections import Projection, find_projections, load_rows
from gptoss_onnx.exporter.trace import attach_bodies
from gptoss_onnx.package import PACKED_FILE
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference.checkpoint import Checkpoint

_ALIGNMENT = 64  # bytes, of the first tensor: where shapes allow it, rows begin with a cache line
_MOST_EXCEPTIONS = 1 / 100  # of all weights: one takes ten bytes, and packing saves half a byte
_PARTS = ("low", "high", "bases", "positions", "values")


@dataclass(frozen=True)
class _Exceptions:
    """Where a weight's exceptions are, int32 (X, 2), and what they are, bfloat16 (X)."""

    positions: Tensor
    values: Tensor


def pack_projections(model: ir.Model, checkpoint: Checkpoint, progress: Progress) -> ComputedFile:
    """Rewrite `model` in place; returns the file that is to hold the weights.

    Raises InputError if no projection can be packed.
    """
    projections = find_projections(model, checkpoint)
    suited = [found for found in projections if _is_suited(found)]
    total = sum(found.rows * found.depth * torch.bfloat16.itemsize for found in suited)
    progress.begin("looking for the exceptions of packed weights", total)
    weights = ComputedWeights()
    for projection in suited:
        exceptions = _find_exceptions(checkpoint, projection, progress)
        if exceptions is None:
            continue
        hidden, _, *bias = projection.node.inputs  # no bias, or an omitted one, or one
        operands = []
        for conversion in _packing(checkpoint, projection, exceptions):
            operands += weights.add(model.graph, conversion)
        new = make_node(projection.node, "LinearPacked", [hidden, *operands, *bias], domain=DOMAIN)
        replace(model.graph, projection.node, [new])
    if not weights:
        raise InputError(
            f"--dense packed: found no projection in bfloat16 with an input width that is a "
            f"multiple of {BLOCK} and at most 1 % of rare exponents, expected one; export with "
            "--dense checkpoint"
        )
    attach_bodies(model)
    return weights.lay_out(
        PACKED_FILE,
        what="the packed weights",
        doing="packing the dense weights into 12 bits",
        alignment=_ALIGNMENT,
    )


def _is_suited(projection: Projection) -> bool:
    dtype = TORCH_DTYPES[projection.parameter.dtype]
    return dtype == torch.bfloat16 and projection.depth > 0 and projection.depth % BLOCK == 0


def _find_exceptions(
    checkpoint: Checkpoint, projection: Projection, progress: Progress
) -> _Exceptions | None:
    """Return the exceptions of a projection; None if there are too many of them."""
    most = _MOST_EXCEPTIONS * projection.rows * projection.depth
    step = max(1, PIECE // projection.depth)
    positions, values, count = [], [], 0
    for first in range(0, projection.rows, step):
        end = min(first + step, projection.rows)
        weight = _load(checkpoint, projection, first, end)
        progress.advance(weight.nbytes)
        if count > most:
            continue  # but the progress is told of all
        places, numbers = list_exceptions(weight, pack_planes(weight)[3])
        places[:, 0] += first
        positions.append(places)
        values.append(numbers)
        count += len(numbers)
    if count > most:
        return None
    if not count:  # a listed zero changes nothing, and files hold no empty tensors
        return _Exceptions(torch.zeros(1, 2, dtype=torch.int32), torch.zeros(1).bfloat16())
    return _Exceptions(torch.cat(positions), torch.cat(values))


def _packing(
    checkpoint: Checkpoint, projection: Projection, exceptions: _Exceptions
) -> tuple[Conversion, Conversion]:
    """Return how a projection's weight (R, C) becomes its planes, and its exceptions a tensor."""
    rows, depth, count = projection.rows, projection.depth, len(exceptions.values)
    low, high, bases, positions, values = (f"{projection.name}.weight_{part}" for part in _PARTS)

    def convert(first: int, end: int) -> Sequence[Tensor]:
        return pack_planes(_load(checkpoint, projection, first, end))[:3]

    planes = Conversion(
        (
            PlannedTensor(low, "U8", (rows, depth)),
            PlannedTensor(high, "U8", (rows, depth // 2)),
            PlannedTensor(bases, "U8", (rows,)),
        ),
        rows,
        depth,
        convert,
    )
    listed = Conversion(
        (PlannedTensor(positions, "I32", (count, 2)), PlannedTensor(values, "BF16", (count,))),
        count,
        2,
        lambda first, end: (exceptions.positions[first:end], exceptions.values[first:end]),
    )
    return planes, listed


def _load(checkpoint: Checkpoint, projection: Projection, first: int, end: int) -> Tensor:
    parameter, transposed = projection.parameter, projection.transposed
    return load_rows(checkpoint, parameter, transposed, first, end).contiguous()
