"""How far apart two right computations of one model may be: an error model with stated headroom.

Two programs that compute the same formula differ by what they round. Each part of a layer adds an
error, relative to its output in norms, and errors of independent roundings add in squares:

    one sum of n products     √2 · u·√(m / 6), where m is n up to BLOCK, and n / LANES more: kernels
                              sum long ones in blocks, or in lanes; both sides do
    its inputs rounded        the root mean square of the rounding, whatever n is
    attention                 projections, scores (error of query and key times their spread),
                              values and cached values, softmax, output projection
    experts or feed-forward   shares, gate and up (the activation's slope doubles their error), down

u is 2⁻²⁴. The constant is that of a random walk: n partial sums grow like √k, and each addition
rounds evenly by up to u, so that the mean square is u²/3 · n/2. Higham and Mary, "A New Approach to
Probabilistic Rounding Error Analysis" (2019), prove λ·u·√n. A layer's output carries the errors of
all parts before it, in squares again: a residual stream hands errors on about as they are.

What this leaves out is how a model conditions its errors: sharp attention, outlier channels, gates.
The headrooms below allow for it. They were set on healthy packages: see tests/validation/healthy.py
for how to measure them, and docs/judging.md for what was found.

Legend: T positions, V vocabulary.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from gptoss_onnx.manifest import Manifest
from gptoss_onnx.reference.config import AttentionConfig, DecoderConfig, ExpertsConfig, LayerConfig

# How float32 products are made: as they are, or with tokens as two bfloat16 terms (by LinearInt8 at
# level amx; all others have three terms there, which are the float32 itself).
Products = Literal["float32", "two bfloat16 terms"]

U = 2.0**-24  # largest relative error of rounding to float32
BLOCK, LANES = 128, 8  # the least that BLAS and ONNX Runtime have, for matrices and for vectors
SPREAD = 2.0  # of attention scores, in which a relative error of q and k shows as an absolute one
SLOPE = 2.0  # how much a gated activation widens a relative error
# Root mean square of what is lost of a number: u/√3 for u the largest relative error, but an
# int8 block counts in steps of 1/127 of its largest number, about three times a typical one.
BF16, F16 = 2.0**-8 / math.sqrt(3), 2.0**-11 / math.sqrt(3)
ROUNDED: dict[str, float] = {
    "float32": 0.0,
    "two bfloat16 terms": 2.0**-17 / math.sqrt(3),
    "bf16": BF16,
    "int8": 3 / 127 / math.sqrt(12),
    "float16": F16,
    "bfloat16": BF16,
}
TYPICAL = 0.5  # of the model's errors, which are upper bounds: what is found
# Headroom over the model, for packages and models that condition their errors worse than those seen
# (docs/judging.md). A mean over positions varies less than the largest of all logits, whose errors
# have longer tails than normal ones where the hidden size is small.
LARGEST_HEADROOM = 3.0
MEAN_HEADROOM = 1.5
LAYER_HEADROOM = 2.0
ROUTER_HEADROOM = 16.0


@dataclass(frozen=True)
class ErrorModel:
    """Expected errors, without headroom, of one model computed in one way against the reference.

    All are root mean squares, relative to those of what is computed: `routers` of router logits and
    `outputs` of the residual stream behind a layer, both a number a layer; `logits` of the logits.
    """

    routers: tuple[float, ...]
    outputs: tuple[float, ...]
    logits: float

    @classmethod
    def of(
        cls,
        config: DecoderConfig,
        context: int,
        *,
        products: Products = "float32",
        activations: str = "exact",
        cache: str = "float32",
    ) -> Self:
        """Return the errors to expect.

        Args:
            config: the model; counts are the widths, lengths and experts of its layers.
            context: the most positions that one token attends to.
            products: how `exact` multiplies; see `products_of`.
            activations: what experts and projections multiply, one of `choices.Activations`.
            cache: dtype of keys and values, one of `choices.KvDtype`.
        """
        inputs = ROUNDED[products if activations == "exact" else activations]
        squares = dot(1, 0) ** 2
        routers, outputs = [], []
        for layer in config.layers:
            squares += _attention(config, layer.attention, context, inputs, ROUNDED[cache])
            routers.append(math.sqrt(squares + dot(config.hidden_size, inputs) ** 2))
            squares += _feed_forward(config, layer, inputs)
            outputs.append(math.sqrt(squares))
        logits = math.sqrt(squares + dot(config.hidden_size, inputs) ** 2)
        return cls(tuple(routers), tuple(outputs), logits)

    def layer(self, index: int) -> float:
        """Return what the relative error of a layer's output may be at most, headroom included:
        the norm of the difference over the norm of the reference's.
        """
        return LAYER_HEADROOM * self.outputs[index]

    def router_bounds(self) -> tuple[float, ...]:
        """Return how far apart two router logits may be and still change places, a number a layer:
        a share of the root mean square of that router's logits.
        """
        return tuple(ROUTER_HEADROOM * error for error in self.routers)

    def mean_square(self, scale: float) -> float:
        """Return what the mean square error of logits may be, for logits whose own root mean square
        is `scale`.
        """
        return (MEAN_HEADROOM * self.logits * scale) ** 2

    def largest(self, scale: float, count: int) -> float:
        """Return what the largest absolute error of `count` = T·V logits may be: of so many normal
        numbers, the largest is about √(2 ln count) standard deviations.
        """
        return LARGEST_HEADROOM * self.logits * scale * math.sqrt(2 * math.log(max(count, 2)))


def products_of(manifest: Manifest, kernels: str, cpu_level: str) -> Products:
    """Return how `exact` products of a package are made by kernels (`native`, `portable`,
    `contrib`) at a CPU level.
    """
    tiles = (kernels, cpu_level) == ("native", "amx")
    return "two bfloat16 terms" if tiles and manifest.has_op("LinearInt8") else "float32"


def widest(every: Iterable[Products]) -> Products:
    """Return the products with the largest errors."""
    return max(every, key=ROUNDED.__getitem__)


def dot(count: int, inputs: float) -> float:
    """Return how far sums of `count` products are apart that both sides make, relatively, one of
    them of inputs that are off by `inputs`.
    """
    both = math.sqrt(2) * U * math.sqrt((min(count, BLOCK) + count / LANES) / 6)
    return math.hypot(both, inputs)


def _attention(
    config: DecoderConfig, part: AttentionConfig, context: int, inputs: float, cache: float
) -> float:
    """Return the squared relative error that attention adds; `cache` is of cached numbers."""
    seen = min(part.window, context) if part.window else context
    projected = dot(config.hidden_size, inputs) ** 2
    scores = SPREAD**2 * (2 * projected + cache**2 + dot(part.head_dim, 0) ** 2)
    mixed = projected + cache**2 + dot(seen, 0) ** 2
    return scores + mixed + dot(part.heads * part.head_dim, inputs) ** 2


def _feed_forward(config: DecoderConfig, layer: LayerConfig, inputs: float) -> float:
    """Return the squared relative error that experts, or a dense part, add."""
    part = layer.feed_forward
    up = dot(config.hidden_size, inputs) ** 2
    shares = up if isinstance(part, ExpertsConfig) else 0.0
    return shares + SLOPE**2 * up + dot(part.width, inputs) ** 2
