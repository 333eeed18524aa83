"""What a package must reach to pass: one set of limits per lossy choice, each with its reason."""

import math
from dataclasses import dataclass
from functools import reduce

from gptoss_onnx.manifest import Manifest
from gptoss_onnx.reference.rounded import Rounding
from gptoss_onnx.validation.judging.error_model import ErrorModel
from gptoss_onnx.validation.judging.metrics import Difference


@dataclass(frozen=True)
class Limits:
    """Largest max-abs error in logits and mean KL divergence in nats, and smallest top-1
    agreement.

    `near`: routers whose logits are closer are near-tied, beside those that the error model names.
    """

    max_abs: float
    kl: float
    top1: float
    near: float = 0.0

    def hold(self, difference: Difference) -> bool:
        """Tell whether what is known of a difference is within its limit; NaN never is.

        KL and top-1 are judged as what they are, means over positions. Of fewer than
        `LEAST_POSITIONS` one may be the odd one that every sequence has, so their KL counts as if
        positions without any made up the number, and their top-1 is not judged.
        """
        if difference.top1 is not None and not self._holds_top1(difference):
            return False
        share = min(1.0, difference.positions / LEAST_POSITIONS)
        return difference.max_abs <= self.max_abs and (
            difference.kl is None or share * difference.kl <= self.kl
        )

    def odd(self, count: int) -> float:
        """Return how many of `count` positions may have another favourite: what is expected, and
        two standard deviations of such a count.
        """
        share = 1 - self.top1
        return max(1.0, count * share + 2 * math.sqrt(count * share * (1 - share)))

    def _holds_top1(self, difference: Difference) -> bool:
        count = difference.positions
        differing = math.nan if difference.top1 is None else (1 - difference.top1) * count
        # a whole number, but for the rounding of the share
        return differing <= self.odd(count) + 1e-6 or (
            count < LEAST_POSITIONS and math.isfinite(differing)
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
        judged = [f"max abs ≤ {self.max_abs:.2g}"] if math.isfinite(self.max_abs) else []
        judged += [f"KL ≤ {self.kl:.2g}"] if math.isfinite(self.kl) else []
        judged += [f"top-1 ≥ {self.top1:g}"] if self.top1 > 0 else []
        return ", ".join(judged)


MODEL_POSITIONS = 1000  # about as many as a case compares; their number hardly matters
# Of fewer, a single odd position decides every mean.
LEAST_POSITIONS = 16
# The same formula in float32, summed in another order, of a model that is not known: errors near
# 1e-5 on small models and 1e-4 on deep ones. `exact_limits` says more of one that is. Two logits
# closer than that may swap places, so a share of top-1 may differ even here.
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
# Headroom of what flipped experts are expected to cost. Seen on random models: up to 1.6 times as
# much KL, and 1.1 times as many other favourites.
FLIPPED_KL, FLIPPED_TOP1 = 3.0, 2.0
# Two experts whose router logits are closer than float32 sums are exact: either may be chosen, and
# one other expert moves the logits of its token, and of those after it, as a narrow cache may.
OTHER_EXPERT = CACHES["bfloat16"]


def exact_limits(errors: ErrorModel, scale: float, vocabulary: int) -> Limits:
    """Return the limits of a package that computes in float32.

    Args:
        errors: of this model, and of how its package multiplies.
        scale: root mean square of the reference's logits.
        vocabulary: V; the largest error is that of `MODEL_POSITIONS` · V logits.
    """
    largest = errors.largest(scale, MODEL_POSITIONS * vocabulary)
    # Errors e of logits move the distribution by Var(e) / 2 nats, to second order.
    return Limits(largest, errors.mean_square(scale) / 2, EXACT.top1)


def limits_for(
    manifest: Manifest,
    activations: str,
    exact: Limits = EXACT,
    flipped: Difference | None = None,
) -> Limits:
    """Return the limits for what was chosen at export and at opening.

    Args:
        manifest: names the cache.
        activations: what experts and projections multiply.
        exact: the limits if nothing is lossy; of two lossy choices, the wider of each limit counts.
        flipped: what flipped experts are expected to cost a lossy setting on this model, if that is
            known; a small random model flips many, and each changes much.
    """
    lossy = [CACHES[manifest.kv_dtype]] if manifest.kv_dtype != "float32" else []
    lossy += [ACTIVATIONS[activations]] if activations != "exact" else []
    if not lossy:
        return exact
    limits = reduce(Limits.wider, lossy)
    if flipped is None or flipped.kl is None or flipped.top1 is None or limits.near:
        return limits  # near-ties are avoided, or told apart, where there is a `near`
    differing = min(1.0, FLIPPED_TOP1 * (1 - flipped.top1))
    return limits.wider(Limits(math.inf, FLIPPED_KL * flipped.kl, 1 - differing))


def rounding_limits(rounding: Rounding) -> Limits:
    """Return what rounded weights may cost, against the checkpoint's own."""
    return Limits(max_abs=math.inf, kl=rounding.kl, top1=rounding.top1)
