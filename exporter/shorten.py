"""Which layers of a model have to be traced, and the model of these alone.

Two layers are of one kind if their configurations are equal and so are the names, dtypes and shapes
of their parameters, and what an adapter's products are multiplied by. All layers of a kind have the
same nodes, but for what the first of them computes and the later ones share: shapes, for instance.
So the first two of each kind are traced, and the second is the pattern of all that follow.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self

from torch import nn

from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.layers import LowRankProduct

_TRACED = 2  # layers of one kind


@dataclass(frozen=True)
class Plan:
    """How few layers become many again.

    Attributes:
        traced: the layers of the model that are traced, ascending.
        patterns: for each layer of the model the index in `traced` of the one that it is like;
            of itself where it is traced.
    """

    traced: tuple[int, ...]
    patterns: tuple[int, ...]

    @classmethod
    def of(cls, kinds: Sequence[Hashable]) -> Self:
        """Return the plan for a model whose layers are of these kinds."""
        seen: Counter[Hashable] = Counter()
        latest: dict[Hashable, int] = {}  # the last traced layer of a kind, as an index in `traced`
        traced: list[int] = []
        patterns = []
        for layer, kind in enumerate(kinds):
            seen[kind] += 1
            if seen[kind] <= _TRACED:
                latest[kind] = len(traced)
                traced.append(layer)
            patterns.append(latest[kind])
        return cls(tuple(traced), tuple(patterns))


def plan_of(model: Decoder) -> Plan:
    """Return which layers of `model` have to be traced."""
    return Plan.of([_kind(model, layer) for layer in range(len(_layers(model)))])


def shorten(model: Decoder, plan: Plan) -> None:
    """Leave `model`, in place, only the layers that `plan` traces, and renumber them."""
    model.keep_layers(plan.traced)


def _layers(model: Decoder) -> nn.ModuleList:
    return model.model.layers


def _kind(model: Decoder, layer: int) -> Hashable:
    parameters = _layers(model)[layer].state_dict().items()
    tensors = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in parameters]
    products = [
        (name, module.scale)
        for name, module in _layers(model)[layer].named_modules()
        if isinstance(module, LowRankProduct)
    ]
    return model.config.layers[layer], tuple(tensors), tuple(products)
