"""Target ort: what prepares the inputs of ONNX Runtime's large ops, judged by itself.

Where GroupQueryAttention departs, the rotation before it may be at fault, and where QMoE or MoE
does, the choice of experts. B batch, S columns, N = B·S, E experts.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gptoss_onnx.custom_ops.sink_attention import rotate
from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.experts_int4 import MixtureOfExpertsInt4
from gptoss_onnx.reference.layers import Attention, MixtureOfExperts
from gptoss_onnx.validation.divergence.forced import Departure, scale_of, worst_relative
from gptoss_onnx.validation.divergence.named_graph import NamedGraph
from gptoss_onnx.validation.divergence.points import Point

Values = Mapping[str, NDArray[Any]]
# op: which of its inputs and outputs have to be known
_KNOWN = {"RotaryEmbedding": (0, 1, 2), "TopK": (0,), "ScatterElements": ()}


def prepared_values(named: NamedGraph, layer: int) -> list[str]:
    """Return the float values of a layer that have to be known beside its points."""
    names = []
    for op, inputs in _KNOWN.items():
        for node in named.of_layer(layer, op):
            names += [node.input[index] for index in inputs]
            names += node.output[:1]
    return names


def prepared_departure(
    named: NamedGraph,
    model: Decoder,
    layer: int,
    values: Values,
    real: Tensor,
    allowed: Callable[[Point], float],
) -> tuple[onnx.NodeProto, Departure] | None:
    """Return the first node that rotates or chooses otherwise than it should; None if none does.

    Args:
        named: the graph.
        model: the reference.
        layer: number of the layer.
        values: of one call, those of `prepared_values` among them.
        real: bool (N), tokens without padding.
        allowed: the relative error of a point that is no departure.
    """
    block = model.get_submodule(f"model.layers.{layer}")
    for node, found, expected, taken in (
        *_rotated(named, block, layer, values),
        *_chosen(named, block, layer, values),
    ):
        error = worst_relative(found[real], expected[real])
        point = Point(f"model.layers.{layer}", "in", node.output[0])
        if not error <= allowed(point):
            return node, Departure(point, error, *scale_of(taken))
    return None


_Judged = tuple[onnx.NodeProto, Tensor, Tensor, Tensor]


def _rotated(named: NamedGraph, block: nn.Module, layer: int, values: Values) -> Iterator[_Judged]:
    attention = block.get_submodule("self_attn")
    assert isinstance(attention, Attention)
    config = attention.config
    interleaved = int(config.rope is not None and config.rope.interleaved)
    for node in named.of_layer(layer, "RotaryEmbedding"):
        if not values.keys() >= {*node.input[:3], node.output[0]}:
            continue
        x, cos, sin = (torch.from_numpy(values[name]) for name in node.input[:3])
        heads = x.unflatten(2, (-1, config.head_dim)).transpose(1, 2)  # (B, heads, S, D)
        expected = rotate(heads, cos, sin, interleaved).transpose(1, 2)
        found = torch.from_numpy(values[node.output[0]])
        yield node, found.flatten(0, 1), expected.reshape(x.shape).flatten(0, 1), x


def _chosen(named: NamedGraph, block: nn.Module, layer: int, values: Values) -> Iterator[_Judged]:
    """Judge which logits the experts are given; an equal one goes to the lower expert."""
    scattered = named.of_layer(layer, "ScatterElements")
    for node, after in zip(named.of_layer(layer, "TopK"), scattered, strict=False):
        if not values.keys() >= {node.input[0], after.output[0]}:
            continue
        logits = torch.from_numpy(values[node.input[0]])  # (N, E)
        experts = block.get_submodule("mlp")
        assert isinstance(experts, (MixtureOfExperts, MixtureOfExpertsInt4))
        top_k = experts.attributes.top_k
        best = logits.argsort(dim=1, descending=True, stable=True)[:, :top_k]
        expected = torch.zeros_like(logits).scatter(1, best, 1.0)
        found = torch.from_numpy(values[after.output[0]])
        yield node, (found > -torch.inf).float(), expected, logits
