"""What validation and golden vectors ask of a model, whatever its architecture.

Legend: T positions, E experts.
"""

from torch import nn

from gptoss_onnx.reference.config import ModelConfig
from gptoss_onnx.reference.model import GptOss, SparseMLP


def longest(config: ModelConfig) -> int:
    """Return the most positions that a sequence may have."""
    return config.max_position_embeddings


def windows(config: ModelConfig) -> tuple[int, ...]:
    """Return the window in tokens of every sliding layer; empty if all layers see everything."""
    each = map(config.window_of, range(config.num_layers))
    return tuple(window for window in each if window)


def scaled_beyond(config: ModelConfig) -> int | None:
    """Return the length from which on a rotary embedding is scaled.

    None if no layer has a scaled rotary embedding, or if no sequence may be longer than that.
    """
    original = config.rope.original_max_position_embeddings
    return original if config.rope.kind != "default" and original < longest(config) else None


def routers(model: GptOss) -> list[tuple[nn.Module, int]]:
    """Return the routers, whose output is (T, E), and how many experts each gives a token."""
    mixtures = (module for module in model.modules() if isinstance(module, SparseMLP))
    return [(mixture.router, mixture.attributes[0]) for mixture in mixtures]
