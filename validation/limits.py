"""What a package must reach to pass: one set of limits per lossy choice, each with its reason."""

import math
from dataclasses import dataclass

from gptoss_onnx.manifest import Manifest
from gptoss_onnx.reference.experts_int4 import EXPERTS_INT4
from gptoss_onnx.validation.metrics import Difference


@dataclass(frozen=True)
class Limits:
    """Largest max-abs error in logits and mean KL divergence in nats, and smallest top-1
    agreement.
    """

    max_abs: float
    kl: float
    top1: float

    def hold(self, difference: Difference) -> bool:
        """Tell whether what is known of a difference is within its limit; NaN never is.

        One position may always differ in top-1, as in a tie.
        """
        if difference.top1 is not None:
            differing = round((1 - difference.top1) * difference.positions)
            if differing > max(1, (1 - self.top1) * difference.positions):
                return False
        return difference.max_abs <= self.max_abs and (
            difference.kl is None or difference.kl <= self.kl
        )

    def wider(self, other: "Limits") -> "Limits":
        """Return the wider of each limit, for two lossy choices together."""
        return Limits(
            max(self.max_abs, other.max_abs), max(self.kl, other.kl), min(self.top1, other.top1)
        )

    def __str__(self) -> str:
        judged = [f"max abs ≤ {self.max_abs:g}"] if math.isfinite(self.max_abs) else []
        judged += [f"KL ≤ {self.kl:g}"] if math.isfinite(self.kl) else []
        judged += [f"top-1 ≥ {self.top1:g}"] if self.top1 > 0 else []
        return ", ".join(judged)


# The same formula in float32, summed in another order: errors near 1e-5 on small models and 1e-4 on
# deep ones. Two logits closer than that may swap places, so a share of top-1 may differ even here.
EXACT = Limits(max_abs=1e-3, kl=1e-6, top1=0.99)
# Keys and values rounded to 11 or 8 significant bits move attention by about as much, relative to
# its size. That is enough to send a token to another expert now and then, and a flipped expert may
# move a single logit by anything, so the distribution is judged and the largest error only
# reported. Seen on random models, the worst case there is, for lack of any confident prediction: KL
# 2e-6 and 6e-3.
CACHES = {
    "float32": EXACT,
    "float16": Limits(max_abs=math.inf, kl=1e-3, top1=0.95),
    "bfloat16": Limits(max_abs=math.inf, kl=2e-2, top1=0.9),
}
# What the experts and projections multiply, rounded to 8 bits of mantissa, or to 8-bit integers in
# blocks of 32; the same holds of routers. Seen on the demo checkpoint with random tokens: KL 1.3e-3
# and 2.4e-3, top-1 0.987 and 0.973.
ACTIVATIONS = {
    "exact": EXACT,
    "bf16": Limits(max_abs=math.inf, kl=1e-2, top1=0.93),
    "int8": Limits(max_abs=math.inf, kl=2e-2, top1=0.9),
}
# Projections and lm_head rounded to 8-bit integers in blocks of 32, against the checkpoint's own.
# Seen on the demo checkpoint with random tokens: KL 4e-4 … 5e-3, top-1 0.986 … 1. Random weights
# may go beyond, and are then rightly
# failed: their routers choose by a hair, so that tiny models of them lose up to 0.2 nats.
DENSE_INT8 = Limits(max_abs=math.inf, kl=2e-2, top1=0.95)
# MXFP4 experts rounded to 4-bit integers are off by 6 to 7 % of the root mean square of trained
# weights. Seen on the demo checkpoint with random tokens: KL 2e-2, top-1 0.894.
INT4_EXPERTS = Limits(max_abs=math.inf, kl=1e-1, top1=0.8)


def limits_for(manifest: Manifest, activations: str) -> Limits:
    """Return the limits for what was chosen at export and at opening: of two lossy choices, the
    wider of each limit.
    """
    return CACHES[manifest.kv_dtype].wider(ACTIVATIONS[activations])


@dataclass(frozen=True)
class Rounded:
    """Weights that the export rounded: what the case that measures them is called, and its
    limits.
    """

    name: str
    limits: Limits


def rounded_weights(manifest: Manifest) -> list[Rounded]:
    """Return which weights of a package are not the checkpoint's own."""
    found = [Rounded("int8 weights", DENSE_INT8)] if manifest.has_op("LinearInt8") else []
    return found + (
        [Rounded("int4 experts", INT4_EXPERTS)] if EXPERTS_INT4 in manifest.lossy else []
    )
