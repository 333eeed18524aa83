"""The parts of the decoder: projections, norms, attention, feed-forward layers, experts.

Parameters stay in the checkpoint's dtypes; activations are computed in the dtype of their input.
Attention, experts and projections are the `gptoss::*` custom ops.

Legend: B batch, S new tokens, N = B·S, H query heads, K kv heads, D head dim, E experts, I width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Importing them defines the ops.
from gptoss_onnx.custom_ops import linear, moe_dispatch, sink_attention  # noqa: F401
from gptoss_onnx.custom_ops.moe_attributes import MoEAttributes
from gptoss_onnx.custom_ops.mxfp4 import BLOCK, BYTES_PER_BLOCK
from gptoss_onnx.reference.config import (
    AttentionConfig,
    ExpertsConfig,
    FeedForwardConfig,
    NormConfig,
)

KeyValue = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Call:
    """What the layers of one forward pass share.

    Lengths (B); cos and sin (B, S, R/2) of each token's position, and by window those of min(p,
    window − 1), with which a query meets the kept first tokens; ALiBi's slopes (H).
    """

    batch: int
    past_lengths: Tensor
    new_lengths: Tensor
    rotation: tuple[Tensor | None, Tensor | None]
    sink_rotation: dict[int, tuple[Tensor, Tensor]]
    slopes: Tensor | None


def parameter(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    """Return an uninitialised parameter that is not trained."""
    return nn.Parameter(torch.empty(*shape, dtype=dtype), requires_grad=False)


class LowRankProduct(nn.Module):
    """What an adapter adds to a projection while it runs: scale · (x · aᵀ) · bᵀ."""

    def __init__(self, inputs: int, outputs: int, rank: int, scale: float) -> None:
        super().__init__()
        self.a = parameter(rank, inputs)
        self.b = parameter(outputs, rank)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Project (N, in) to (N, out)."""
        narrow = torch.ops.gptoss.linear(x, self.a, None)  # (N, rank)
        return torch.ops.gptoss.linear(narrow, self.b, None) * self.scale  # type: ignore[no-any-return]


class Linear(nn.Module):
    """A projection (N, in) → (N, out); its weight is (out, in), or (in, out) where `transposed`.

    `product` is an adapter's that was not merged into the weight; None without one.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool, transposed: bool = False) -> None:
        super().__init__()
        self.weight = parameter(*((inputs, outputs) if transposed else (outputs, inputs)))
        self.bias = parameter(outputs) if bias else None
        self.transposed = transposed
        self.product: LowRankProduct | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Project (N, in) to (N, out)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        result: Tensor = torch.ops.gptoss.linear(
            x, self.weight, bias, *([True] if self.transposed else [])
        )
        return result if self.product is None else result + self.product(x)


class Norm(nn.Module):
    """A norm of the last axis in float32 or wider; the result is cast back."""

    def __init__(self, size: int, config: NormConfig) -> None:
        super().__init__()
        self.weight = parameter(size)
        self.bias = parameter(size) if config.kind == "layer" else None
        self.eps = config.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of x, whatever its other axes are."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        size, weight = (x.shape[-1],), self.weight.to(wide.dtype)
        if self.bias is None:
            return F.rms_norm(wide, size, weight, self.eps).to(x.dtype)
        return F.layer_norm(wide, size, weight, self.bias.to(wide.dtype), self.eps).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention over the cache: (N, hidden) → (N, hidden)."""

    def __init__(self, hidden: int, config: AttentionConfig, norm: NormConfig) -> None:
        super().__init__()
        width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        bias, transposed = config.bias, config.transposed
        if config.projections == "separate":
            self.q_proj = Linear(hidden, width, bias, transposed)
            self.k_proj = Linear(hidden, kv_width, bias, transposed)
            self.v_proj = Linear(hidden, kv_width, bias, transposed)
        else:
            self.qkv_proj = Linear(hidden, width + 2 * kv_width, bias, transposed)
        self.o_proj = Linear(width, hidden, config.output_bias, transposed)
        if config.qk_norm:
            self.q_norm, self.k_norm = (Norm(config.head_dim, norm) for _ in range(2))
        self.sinks = parameter(config.heads) if config.sinks else None
        self.config = config

    def forward(self, x: Tensor, past: KeyValue, call: Call) -> tuple[Tensor, KeyValue]:
        """Attend (N, hidden) over `past` and itself; returns it with present keys and values."""
        config = self.config
        wide = torch.promote_types(x.dtype, torch.float32)
        rows = (part.unflatten(0, (call.batch, -1)) for part in self._project(x))
        cos, sin = call.rotation if config.rope else (None, None)
        kept = (
            call.sink_rotation[config.window]
            if config.sink_tokens and config.rope
            else (None, None)
        )
        output, key, value = torch.ops.gptoss.sink_attention(
            *rows,  # (B, S, H·D), (B, S, K·D), (B, S, K·D)
            *past,
            call.past_lengths,
            call.new_lengths,
            None if self.sinks is None else self.sinks.to(wide),
            cos,
            sin,
            call.slopes if config.alibi else None,
            None,
            *kept,
            config.heads,
            config.kv_heads,
            config.scale,
            config.window,
            int(config.rope is not None and config.rope.interleaved),
            config.sink_tokens,
            config.sink_bias,
        )
        return self.o_proj(output.flatten(0, 1)), (key, value)

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return query (N, H·D), key and value (N, K·D) of (N, hidden)."""
        config = self.config
        if config.projections == "separate":
            query, key, value = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        elif config.projections == "stacked":
            widths = [count * config.head_dim for count in (config.heads, *[config.kv_heads] * 2)]
            query, key, value = self.qkv_proj(x).split(widths, dim=-1)
        else:
            triples = self.qkv_proj(x).unflatten(1, (config.heads, 3, config.head_dim))
            query, key, value = (triples[:, :, index].flatten(1) for index in range(3))
        if not config.qk_norm:
            return query, key, value
        heads = (part.unflatten(1, (-1, config.head_dim)) for part in (query, key))
        query, key = (
            norm(part).flatten(1)
            for norm, part in zip((self.q_norm, self.k_norm), heads, strict=True)
        )
        return query, key, value


class FeedForward(nn.Module):
    """A dense feed-forward layer: (N, hidden) → (N, hidden)."""

    def __init__(self, hidden: int, config: FeedForwardConfig) -> None:
        super().__init__()
        width, bias, transposed = config.width, config.bias, config.transposed
        if config.activation != "swiglu":
            self.up_proj = Linear(hidden, width, bias, transposed)
        elif config.fused:
            self.gate_up_proj = Linear(hidden, 2 * width, bias, transposed)
        else:
            self.gate_proj = Linear(hidden, width, bias, transposed)
            self.up_proj = Linear(hidden, width, bias, transposed)
        self.down_proj = Linear(width, hidden, bias, transposed)
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """Widen (N, hidden), activate, and project back."""
        return self.down_proj(self._activate(x))  # type: ignore[no-any-return]

    def _activate(self, x: Tensor) -> Tensor:
        if self.config.activation == "swiglu":
            gate: Tensor
            if self.config.fused:
                gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
            else:
                gate, up = self.gate_proj(x), self.up_proj(x)
            return F.silu(gate) * up  # type: ignore[no-any-return]
        wide: Tensor = self.up_proj(x)
        match self.config.activation:
            case "silu":
                return F.silu(wide)
            case "relu":
                return F.relu(wide)
            case "gelu":
                return F.gelu(wide)
            case "gelu_tanh":
                return F.gelu(wide, approximate="tanh")


class ExpertWeights(nn.Module):
    """The experts of one layer, as the checkpoint stores them: see `ExpertsConfig.storage`."""

    def __init__(self, hidden: int, config: ExpertsConfig) -> None:
        super().__init__()
        count, width = config.count, config.width
        self.as_rows = config.storage == "rows"
        rows = 2 * width if config.activation == "swiglu" else width
        if config.storage == "mxfp4":
            gate_up, down = (count, rows, hidden // BLOCK), (count, hidden, width // BLOCK)
            self.gate_up_proj_blocks = parameter(*gate_up, BYTES_PER_BLOCK, dtype=torch.uint8)
            self.gate_up_proj_scales = parameter(*gate_up, dtype=torch.uint8)
            self.down_proj_blocks = parameter(*down, BYTES_PER_BLOCK, dtype=torch.uint8)
            self.down_proj_scales = parameter(*down, dtype=torch.uint8)
        elif config.storage == "columns":
            self.gate_up_proj = parameter(count, hidden, rows)
            self.down_proj = parameter(count, width, hidden)
        else:
            self.gate_up_proj = parameter(count, rows, hidden)
            self.down_proj = parameter(count, hidden, width)
        self.gate_up_proj_bias = parameter(count, rows) if config.bias else None
        self.down_proj_bias = parameter(count, hidden) if config.bias else None


class MixtureOfExperts(nn.Module):
    """Router and experts: (N, hidden) → (N, hidden)."""

    def __init__(self, hidden: int, config: ExpertsConfig) -> None:
        super().__init__()
        self.router = Linear(hidden, config.count, config.router_bias)
        self.experts = ExpertWeights(hidden, config)
        self.config = config
        self.attributes = MoEAttributes(
            config.top_k,
            config.alpha,
            config.limit,
            config.beta,
            config.activation,
            int(config.normalize),
            int(config.interleaved),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Send each token of (N, hidden) through its top-k experts."""
        config, weights = self.config, self.experts
        biases = (weights.gate_up_proj_bias, weights.down_proj_bias)
        gate_up_bias, down_bias = (None if bias is None else bias.to(x.dtype) for bias in biases)
        output: Tensor
        if config.storage == "mxfp4":
            gate_up = (weights.gate_up_proj_blocks, weights.gate_up_proj_scales)
            down = (weights.down_proj_blocks, weights.down_proj_scales)
            output = torch.ops.gptoss.moe_dispatch_mxfp4(
                *(x, self.router(x), *gate_up, gate_up_bias, *down, down_bias),
                *self.attributes.shared,
            )
        else:
            output = torch.ops.gptoss.moe_dispatch(
                *(x, self.router(x), weights.gate_up_proj, gate_up_bias),
                *(weights.down_proj, down_bias),
                *(*self.attributes.shared, self.attributes.interleaved),
                int(config.storage == "rows"),
            )
        return output
