"""Weights that an export rounded: one row for each kind, and `apply`, which gives them to the
reference.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gptoss_onnx.manifest import RoundedKind, RoundedWeights
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.dense_int8 import use_dense_int8
from gptoss_onnx.reference.experts_int4 import use_experts_int4
from gptoss_onnx.reference.experts_mxfp4 import use_experts_mxfp4


@dataclass(frozen=True)
class Rounding:
    """What one kind of rounding does to a model.

    `name` is what people call the rounded weights. `use` replaces the weights of a model by those
    of a file. `kl` (nats) and `top1` (a share) say what the rounding may cost, against the
    checkpoint's own weights: the largest mean KL divergence, and the smallest agreement of the most
    probable token.
    """

    name: str
    use: Callable[[Decoder, Path], Decoder]
    kl: float
    top1: float


ROUNDINGS: Mapping[RoundedKind, Rounding] = {
    # Projections and lm_head in 8-bit integers in blocks of 32. Seen on the demo checkpoint with
    # random tokens: KL 4e-4 … 5e-3, top-1 0.986 … 1. Random weights may go beyond, and then fail
    # rightly: their routers choose by a hair, so that tiny models of them lose up to 0.2 nats.
    "dense-int8": Rounding("int8 weights", use_dense_int8, kl=2e-2, top1=0.95),
    # MXFP4 experts in 4-bit integers are off by 6 to 7 % of the root mean square of trained
    # weights. Seen on the demo checkpoint with random tokens: KL 2e-2, top-1 0.894.
    "experts-int4": Rounding("int4 experts", use_experts_int4, kl=1e-1, top1=0.8),
    # Normally distributed weights in MXFP4 are off by 11 % of their root mean square. Seen on
    # random tiny models: KL 0.3, top-1 0.69 of 45 positions, by a hair within; others may go
    # beyond, and then fail rightly. Nobody has measured a trained model of dense experts here.
    "experts-mxfp4": Rounding("MXFP4 experts", use_experts_mxfp4, kl=3e-1, top1=0.7),
}


def apply(model: Decoder, folder: Path, rounded: Iterable[RoundedWeights]) -> Decoder:
    """Replace in `model` all weights that a package has rounded, and return the model.

    Weights that rounding did not change stay the checkpoint's own.

    Args:
        model: the reference with the checkpoint's weights.
        folder: the package folder, whose files the new weights are mapped from.
        rounded: the manifest's entries.

    Raises:
        PackageError: a file cannot be read, or its weights are not those of such a model.
    """
    for entry in rounded:
        if entry.exact:
            continue
        ROUNDINGS[entry.kind].use(model, folder / entry.file)
    return model
