"""What a package must reach to pass: one set of limits per lossy choice, each with its reason."""

import math
from dataclasses import dataclass

from gptoss_onnx.manifest import Manifest
from gptoss_onnx.reference.rounded import Rounding
from gptoss_onnx.validation.judging.metrics import Difference
from gptoss_onnx.validation.judging.near_ties import NEAR


@dataclass(frozen=True)
class Limits:
    """Largest max-abs error in logits and mean KL divergence in nats, and smallest top-1
    agreement. Two experts whose router logits are less than `near` apart may be chosen either way.
    """

    max_abs: float
    kl: float
    top1: float
    near: float = NEAR

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
            max(self.max_abs, other.max_abs),
            max(self.kl, other.kl),
            min(self.top1, other.top1),
            max(self.near, other.near),
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
# 2e-6 and 6e-3. Float16 moves router logits by about 1e-3, so a choice within 1e-2 may fall either
# way; the limits of bfloat16 allow for flipped experts as they are.
CACHES = {
    "float32": EXACT,
    "float16": Limits(max_abs=math.inf, kl=1e-3, top1=0.95, near=1e-2),
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
# Two experts whose router logits are closer than float32 sums are exact: either may be chosen, and
# one other expert moves the logits of its token, and of those after it, as a narrow cache may.
OTHER_EXPERT = CACHES["bfloat16"]


def limits_for(manifest: Manifest, activations: str) -> Limits:
    """Return the limits for what was chosen at export and at opening: of two lossy choices, the
    wider of each limit.
    """
    return CACHES[manifest.kv_dtype].wider(ACTIVATIONS[activations])


def rounding_limits(rounding: Rounding) -> Limits:
    """Return what rounded weights may cost, against the checkpoint's own."""
    return Limits(max_abs=math.inf, kl=rounding.kl, top1=rounding.top1)
