"""What a decoder may have that ONNX Runtime's own ops do not compute, found before anything is
written.
"""

from collections.abc import Iterator

from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig

# What MoE on the CPU calls the activations that it has: its gelu is the approximation with tanh.
ACTIVATIONS = {"swiglu": "swiglu", "silu": "silu", "relu": "relu", "gelu_tanh": "gelu"}
HEAD_DIM_MULTIPLE = 8  # GroupQueryAttention takes no other


def not_lowered(config: DecoderConfig) -> Iterator[str]:
    """Yield a line for each feature of `config` that the ort target does not have."""
    for layer in config.layers:
        attention, part = layer.attention, layer.feed_forward
        if attention.head_dim % HEAD_DIM_MULTIPLE:
            yield _line(
                f"head_dim {attention.head_dim}",
                f"a multiple of {HEAD_DIM_MULTIPLE} (GroupQueryAttention takes no other)",
            )
        if attention.sink_tokens:
            yield _line(
                f"sink_tokens {attention.sink_tokens}",
                "0 (GroupQueryAttention keeps no first tokens of a window)",
            )
        if isinstance(part, ExpertsConfig) and part.activation not in ACTIVATIONS:
            yield _line(
                f"experts with {part.activation}",
                f"{', '.join(ACTIVATIONS)} (MoE has no other on the CPU)",
            )


def _line(found: str, expected: str) -> str:
    return f"--target ort: found {found}, expected {expected}: export with --target portable"
