"""What validation asks of a model, whatever its architecture. Legend: T positions, E experts."""

from torch import nn

from gptoss_onnx.reference.config import DecoderConfig
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.experts_int4 import MixtureOfExpertsInt4
from gptoss_onnx.reference.layers import MixtureOfExperts


def windows(config: DecoderConfig) -> tuple[int, ...]:
    """Return the window in tokens of every sliding layer; empty if all layers see everything."""
    each = (layer.attention.window for layer in config.layers)
    return tuple(window for window in each if window)


def scaled_beyond(config: DecoderConfig) -> int | None:
    """Return the length from which on a rotary embedding is scaled.

    None if no layer has a scaled rotary embedding, or if no sequence may be longer than that.
    """
    ropes = (layer.attention.rope for layer in config.layers)
    originals = [rope.original_longest for rope in ropes if rope and rope.kind != "default"]
    return min((length for length in originals if length < config.longest), default=None)


def routers(model: Decoder) -> list[tuple[nn.Module, int]]:
    """Return the routers, whose output is (T, E), and how many experts each gives a token."""
    kinds = (MixtureOfExperts, MixtureOfExpertsInt4)
    mixtures = (module for module in model.modules() if isinstance(module, kinds))
    return [(mixture.router, mixture.attributes.top_k) for mixture in mixtures]
