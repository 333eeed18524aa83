"""Graph pass of `export --experts mxfp4`: dense experts become MXFP4.

Matches every MoEDispatch and makes it MoEDispatchMXFP4, on weights from a new file. Where gates and
ups are halves, their rows take turns there, and their biases before the op, as it wants them.
Leaves alone: the router, and experts that are MXFP4 already.
"""

from collections.abc import Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from gptoss_onnx.checkpoint.tensors import Parameter
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, BYTES_PER_BLOCK, SCALE_NAN
from gptoss_onnx.custom_ops.mxfp4_native import quantize
from gptoss_onnx.custom_ops.mxfp4_quantize import Quantized, empty_mxfp4
from gptoss_onnx.custom_ops.schemas import MOE_DISPATCH_MXFP4
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import PIECE, Conversion
from gptoss_onnx.exporter.expert_errors import ExpertErrors
from gptoss_onnx.exporter.nodes import interleave_biases, make_node, replace
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.experts_mxfp4 import mxfp4_names

_SIDE_BY_SIDE = 4  # blocks of a row whose codes share a line of the cache


def quantize_experts(
    model: ir.Model, checkpoint: Checkpoint, weights: ComputedWeights, errors: ExpertErrors
) -> None:
    """Rewrite `model` in place, but for its bodies.

    Args:
        model: the graph, with the checkpoint's names.
        checkpoint: where the experts are.
        weights: gets what is computed; to compute it raises CheckpointError where a weight is not
            finite.
        errors: get those of each tensor while it is computed.
    """
    experts = _Experts(checkpoint, errors)
    graph = model.graph
    kept = {attribute.name for attribute in MOE_DISPATCH_MXFP4.attributes}
    for node in [node for node in graph if node.op_type == "MoEDispatch"]:
        hidden, logits, gate_up, gate_up_bias, down, down_bias = (*node.inputs, None)[:6]
        in_rows, interleaved = _flag(node, "transposed", 0), _flag(node, "interleaved", 1)
        halves = not interleaved and _is_gated(node)
        both = [
            weights.add(graph, experts.quantizing(weight, in_rows, pairs))
            for weight, pairs in ((gate_up, halves), (down, False))
        ]
        reorder: list[ir.Node] = []
        if halves and gate_up_bias is not None:
            reorder = interleave_biases(graph, node, gate_up_bias)
            gate_up_bias = reorder[-1].outputs[0]
        inputs = [hidden, logits, *both[0], gate_up_bias, *both[1], down_bias]
        attributes = {name: a.value for name, a in node.attributes.items() if name in kept}
        new = make_node(node, "MoEDispatchMXFP4", inputs, attributes, domain=DOMAIN)
        replace(graph, node, [*reorder, new])


def _flag(node: ir.Node, name: str, default: int) -> bool:
    attribute = node.attributes.get(name)
    return bool(default if attribute is None else attribute.as_int())


def _is_gated(node: ir.Node) -> bool:
    attribute = node.attributes.get("activation")
    return attribute is None or attribute.as_string() == "swiglu"


class _Experts:
    """The weights of all experts, by the initializers that they are in a graph."""

    def __init__(self, checkpoint: Checkpoint, errors: ExpertErrors) -> None:
        self._checkpoint, self._errors = checkpoint, errors
        self._canonical = {entry.name: name for name, entry in checkpoint.parameters.items()}

    def quantizing(self, value: ir.Value | None, in_rows: bool, halves: bool) -> Conversion:
        """Return how a weight becomes MXFP4 blocks (E, R, C/32, 16) and scales (E, R, C/32).

        Args:
            value: the weight: (E, R, C), or (E, C, R) if not `in_rows`.
            in_rows: whether it lies so.
            halves: row i of the second half of R goes behind row i of the first.
        """
        name, parameter = self._find(value)
        count, rows, depth = parameter.shape
        if not in_rows:
            rows, depth = depth, rows
        blocks_name, scales_name = mxfp4_names(name)
        planned = (
            PlannedTensor(blocks_name, "U8", (count, rows, depth // BLOCK, BYTES_PER_BLOCK)),
            PlannedTensor(scales_name, "U8", (count, rows, depth // BLOCK)),
        )

        def convert(first: int, end: int) -> Sequence[Tensor]:
            if not in_rows:
                pieces = [self._quantize(name, parameter, e, depth) for e in range(first, end)]
                if len(pieces) == 1:
                    return pieces[0]  # as where experts are large: nothing to copy
                return [torch.cat(parts) for parts in zip(*pieces, strict=True)]
            read = self._read_pairs if halves else self._checkpoint.read_rows
            return self._quantized(name, parameter, first, read(parameter, first, end))

        if not in_rows:  # an expert at a time: a block's numbers lie far apart
            return Conversion(planned, count, rows * depth, convert)
        each = 2 if halves else 1
        return Conversion(planned, count * rows // each, each * depth, convert)

    def _find(self, value: ir.Value | None) -> tuple[str, Parameter]:
        assert value is not None
        assert value.name is not None
        return self._canonical[value.name], self._checkpoint.named[value.name]

    def _quantize(
        self, name: str, parameter: Parameter, expert: int, depth: int
    ) -> tuple[Tensor, Tensor]:
        """Return the blocks and scales of one expert that lies as (C, R), read in pieces."""
        rows, groups = parameter.shape[-1], depth // BLOCK
        blocks, scales = empty_mxfp4(rows, depth)
        step = _SIDE_BY_SIDE * max(1, PIECE // (_SIDE_BY_SIDE * BLOCK * rows))
        for first in range(0, groups, step):
            end = min(first + step, groups)
            begin = expert * depth + first * BLOCK
            matrix = self._checkpoint.read_rows(parameter, begin, begin + (end - first) * BLOCK)
            into = blocks[:, first:end], scales[:, first:end]
            self._note(name, parameter, begin, quantize(matrix, columns=True, into=into))
        return blocks, scales

    def _quantized(
        self, name: str, parameter: Parameter, first: int, matrix: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the blocks and scales of rows, of which `first` tells them from others."""
        found = quantize(matrix)
        self._note(name, parameter, first, found)
        return found.blocks, found.scales

    def _note(self, name: str, parameter: Parameter, first: int, found: Quantized) -> None:
        """Take the errors of a piece; raises CheckpointError where a weight is not finite."""
        if bool((found.scales == SCALE_NAN).any()):
            raise CheckpointError(
                f"{parameter.name}: found a weight that is not finite, expected numbers: the "
                "checkpoint is damaged, download it or quantize it again"
            )
        self._errors.add(name, first, found.lost, found.total)

    def _read_pairs(self, parameter: Parameter, first: int, end: int) -> Tensor:
        """Return pairs of rows [first, end), (2n, C): row i of the first half, row i of the second.

        Pairs are counted through all experts.
        """
        _, rows, _ = parameter.shape
        half = rows // 2
        pieces = []
        while first < end:
            expert, at = divmod(first, half)
            many = min(half - at, end - first)
            begin = expert * rows + at
            halves = [
                self._checkpoint.read_rows(parameter, row, row + many)
                for row in (begin, begin + half)
            ]
            pieces.append(torch.stack(halves, dim=1).flatten(0, 1))
            first += many
        return torch.cat(pieces)
