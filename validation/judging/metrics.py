"""How far two sets of logits are apart. Legend: T positions, V vocabulary."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import ParityError

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """Errors of logits against the reference's over `positions` positions.

    `max_abs` and `mean_abs` are in logits; `kl` is the mean KL divergence from the reference's
    distribution to the other, in nats; `top1` is the share of positions whose largest logit is the
    same token. None if only some of the logits are known, as from a client.
    """

    positions: int
    max_abs: float
    mean_abs: float | None
    kl: float | None
    top1: float | None


def compare(found: Logits, expected: Logits) -> Difference:
    """Return the difference of `found` (T, V) from `expected` (T, V); a NaN in `found` gives
    infinite errors.

    Raises:
        ParityError: shapes differ, no position was compared, or the reference is not finite, so
            nothing can be judged.
    """
    if found.shape != expected.shape:
        raise ParityError(f"logits: found shape {found.shape}, the reference has {expected.shape}")
    if not found.size:
        raise ParityError("logits: nothing to compare, found no positions")
    if not np.isfinite(expected).all():
        raise ParityError(
            "the reference's own logits are not finite: its weights or its configuration are broken"
        )
    if not np.isfinite(found).all():
        return Difference(len(found), np.inf, np.inf, np.inf, 0.0)
    distance = np.abs(found.astype(np.float64) - expected)
    kl = kl_by_position(found, expected)
    same = found.argmax(-1) == expected.argmax(-1)
    return Difference(
        len(found),
        float(distance.max()),
        float(distance.mean()),
        max(float(kl.mean()), 0.0),
        float(same.mean()),
    )


def kl_by_position(found: Logits, expected: Logits) -> NDArray[np.float64]:
    """Return the KL divergence (T) of `found` (T, V) from `expected` (T, V), in nats."""
    log_expected = _log_softmax(expected)
    kl = (np.exp(log_expected) * (log_expected - _log_softmax(found))).sum(-1)
    return np.asarray(kl)


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
