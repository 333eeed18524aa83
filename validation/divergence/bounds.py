"""What counts as a departure: the error of one module or op, given the inputs that it had."""

from gptoss_onnx.manifest import Manifest

# Relative, root mean squares of one token. Float32 sums of a few thousand terms in another order
# are off by 1e-6, and by 5e-6 where `exact` multiplies two bfloat16 terms.
EXACT = 1e-4
# A stored key or value on the edge rounds to its other neighbour, 2^-11 or 2^-8 of it.
CACHES = {"float32": EXACT, "float16": 5e-3, "bfloat16": 5e-2}
# Rounded operands of the experts and projections, of which a single token's may cancel.
ACTIVATIONS = {"exact": EXACT, "bf16": 5e-2, "int8": 2e-1}
# A layer's ops follow each other: their errors add up to a few times those of one.
LAYER = 4.0


def op_bound(manifest: Manifest, activations: str) -> float:
    """Return what one op may be off."""
    return max(CACHES[manifest.kv_dtype], ACTIVATIONS[activations])


def layer_bound(manifest: Manifest, activations: str, layer: int) -> float:
    """Return what the output of a layer may be off, with what the layers before it have added."""
    return float(LAYER * op_bound(manifest, activations) * (layer + 1) ** 0.5)
