"""The limits of one column on one model: what the error model says, scaled by the reference's own
logits.
"""

from collections.abc import Sequence

from gptoss_onnx.manifest import Manifest
from gptoss_onnx.validation.judging.error_model import ErrorModel, Products
from gptoss_onnx.validation.judging.expected import Expected
from gptoss_onnx.validation.judging.limits import Limits, exact_limits, limits_for


def model_limits(
    manifest: Manifest,
    activations: str,
    expected: Expected,
    token_ids: Sequence[int],
    products: Products = "float32",
) -> Limits:
    """Return the limits of a package run in one way.

    Args:
        manifest: the package's; names its cache.
        activations: what experts and projections multiply.
        expected: the reference.
        token_ids: a sequence that the cases use, too; it tells the size of the logits, and what
            flipped experts cost.
        products: how `exact` multiplies; see `products_of`.
    """
    config = expected.config
    errors = ErrorModel.of(
        config,
        config.longest,
        products=products,
        activations=activations,
        cache=manifest.kv_dtype,
    )
    if activations == "exact" and manifest.kv_dtype == "float32":
        return exact_limits(errors, expected.scale(token_ids), config.vocab_size)
    return limits_for(manifest, activations, flipped=expected.flipped(token_ids, errors))
