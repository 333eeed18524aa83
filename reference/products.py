"""Give projections of the decoder the products of an adapter that stays beside the weights."""

from collections.abc import Mapping

from torch import nn

from gptoss_onnx.checkpoint.product import Product
from gptoss_onnx.reference.layers import Linear, LowRankProduct


def add_products(model: nn.Module, products: Mapping[str, Product]) -> None:
    """Give projections of `model`, by their names, products without values."""
    for name, product in products.items():
        projection = model.get_submodule(name)
        assert isinstance(projection, Linear)
        rows, columns = projection.weight.shape
        inputs, outputs = (rows, columns) if projection.transposed else (columns, rows)
        projection.product = LowRankProduct(inputs, outputs, product.rank, product.scale)
