"""An adapter that stays beside the weights: its matrices are parameters of the model, which adds
what they make of a projection's input to the projection's result.

So packages of many adapters link one base. PEFT computes so, too, before a merge.
"""

from collections.abc import Sequence

from torch import nn

from gptoss_onnx.checkpoint.adapter import AdapterFiles
from gptoss_onnx.checkpoint.fields import Problems
from gptoss_onnx.checkpoint.product import Product
from gptoss_onnx.checkpoint.tensors import Parameter, TensorInfo
from gptoss_onnx.reference.adapters.base import Base
from gptoss_onnx.reference.adapters.low_rank import LowRank
from gptoss_onnx.reference.adapters.terms import Changes
from gptoss_onnx.reference.layers import Linear

_WEIGHT = ".weight"
_INSTEAD = "expected products of projections alone: leave --adapter-mode runtime out"


def note_no_products(
    changes: Changes, decoder: nn.Module, adapters: Sequence[AdapterFiles], problems: Problems
) -> None:
    """Note what an adapter has that cannot stay beside the weights of a model like `decoder`."""
    if len(adapters) > 1:
        problems.add(f"found {len(adapters)} adapters, expected one that stays beside the weights")
    for info in (info for name, info in changes.replaced.items() if name not in changes.added):
        problems.add(f"{info.name}: found a weight or bias in full, {_INSTEAD}")
    modules = dict(decoder.named_modules())
    for name, terms in changes.added.items():
        projection = modules.get(name.removesuffix(_WEIGHT))
        fits = len(terms) == 1 and isinstance(projection, Linear)
        for term in terms:
            if not isinstance(term, LowRank):
                problems.add(f"{term.bias.name}: found a bias, {_INSTEAD}")
            elif not fits:
                problems.add(f"{term.a.name}: found what is no projection, {_INSTEAD}")
            elif term.magnitude is not None:
                problems.add(f"{term.magnitude.name}: found DoRA, {_INSTEAD}")


def beside(base: Base, changes: Changes) -> tuple[dict[str, Parameter], dict[str, Product]]:
    """Return the parameters with those of an adapter, and the products that these are for.

    PEFT saves the weight of a head that it has wrapped; that is then the one that is read.
    """
    parameters = dict(base.parameters)
    products = {}
    for name, (term,) in changes.added.items():
        assert isinstance(term, LowRank)
        module = name.removesuffix(_WEIGHT)
        stored = base.parameters[name].name.removesuffix(_WEIGHT)
        if name in changes.replaced:
            parameters[name] = _view(base.parameters[name].name, changes.replaced[name])
        products[module] = Product(term.a.shape[0], term.scale)
        for half, info in (("a", term.a), ("b", term.b)):
            parameters[f"{module}.product.{half}"] = _view(f"{stored}.lora_{half.upper()}", info)
    return parameters, products


def _view(name: str, info: TensorInfo) -> Parameter:
    return Parameter(name, info.dtype, info.shape, (info,))
