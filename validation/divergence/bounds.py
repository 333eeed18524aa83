"""What counts as a departure: the error of one module or op, given the inputs that it had.

All are relative errors, root mean squares of the token that is worst off.
"""

from collections.abc import Callable

from torch import nn

from gptoss_onnx.manifest import Manifest
from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.decoder import Block
from gptoss_onnx.reference.layers import Norm
from gptoss_onnx.validation.divergence.points import Point

# Float32 sums of a few thousand terms in another order are off by 1e-6, a whole attention by 2e-6
# on the demo checkpoint, and a product by 5e-6 where `exact` multiplies two bfloat16 terms.
EXACT = 3e-5
# A stored key or value on the edge rounds to its other neighbour, 2^-11 or 2^-8 of it. Seen on the
# demo checkpoint: 1e-3 with float16 on target ort, 3e-4 elsewhere.
CACHES = {"float32": EXACT, "float16": 5e-3, "bfloat16": 2e-2}
# Rounded operands of the experts and projections, of which a single token's may cancel. Seen on the
# demo checkpoint: 7e-3 and 2e-2.
ACTIVATIONS = {"exact": EXACT, "bf16": 3e-2, "int8": 1e-1}


def point_bound(manifest: Manifest, activations: str, model: Decoder) -> Callable[[Point], float]:
    """Return how far the value of a point may be off.

    Norms, residual sums and the rotation are float32 whatever attention and products are.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    lossy = _lossy(manifest, activations)

    def bound(point: Point) -> float:
        return EXACT if isinstance(modules.get(point.module), (Norm, Block)) else lossy

    return bound


def _lossy(manifest: Manifest, activations: str) -> float:
    return max(CACHES[manifest.kv_dtype], ACTIVATIONS[activations])
