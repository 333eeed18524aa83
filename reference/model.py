"""The PyTorch reference of gpt-oss: what the exporter traces and validation compares with.

Parameters have Hugging Face's names and stay in the checkpoint's dtypes; activations are computed
in the dtype `compute` (float32 for validation). Attention, experts and projections are the
`gptoss::*` custom ops.

Legend: B batch, S new tokens, N = B·S, C cache capacity, K kv heads, D head dim, T kept positions,
    V vocabulary.
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptoss_onnx.custom_ops import linear, moe_dispatch, sink_attention  # noqa: F401 - they define the ops
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.reference.config import ModelConfig
from gptoss_onnx.reference.rope import inverse_frequencies

Experts = Literal["mxfp4", "dense"]
KeyValue = tuple[Tensor, Tensor]


def _parameter(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, dtype=dtype), requires_grad=False)


class Linear(nn.Module):
    """A projection (N, in) → (N, out) whose weight keeps the checkpoint's dtype."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = _parameter(outputs, inputs)
        self.bias = _parameter(outputs) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Project (N, in) to (N, out)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return torch.ops.gptoss.linear(x, self.weight, bias)  # type: ignore[no-any-return]


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32 or wider, scaled by the weight before the result is cast
    back.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = _parameter(size)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of (N, hidden)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.rms_norm(wide, (x.shape[-1],), self.weight.to(wide.dtype), self.eps).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with a sink per head, over a window or over everything."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, width, config.attention_bias)
        self.k_proj = Linear(config.hidden_size, kv_width, config.attention_bias)
        self.v_proj = Linear(config.hidden_size, kv_width, config.attention_bias)
        self.o_proj = Linear(width, config.hidden_size, config.attention_bias)
        self.sinks = _parameter(config.num_heads)
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.scale = config.head_dim**-0.5
        self.window = config.window_of(layer)

    def forward(
        self, x: Tensor, batch: int, past: KeyValue, call: "Call"
    ) -> tuple[Tensor, KeyValue]:
        """Attend (N, hidden) over `past` plus itself; returns (N, hidden) and the present keys and
        values.
        """
        rows = (
            projection(x).unflatten(0, (batch, -1))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        output, key, value = torch.ops.gptoss.sink_attention(
            *rows,  # (B, S, H·D), (B, S, K·D), (B, S, K·D)
            *past,
            call.past_lengths,
            call.new_lengths,
            self.sinks.to(torch.promote_types(x.dtype, torch.float32)),
            call.cos,
            call.sin,
            *(None, None, None, None),  # no bias by distance, no kept tokens
            self.num_heads,
            self.num_kv_heads,
            self.scale,
            self.window,
        )
        return self.o_proj(output.flatten(0, 1)), (key, value)


class ExpertWeights(nn.Module):
    """The experts of one layer: MXFP4 blocks and scales, or dense weights as Hugging Face stores
    them.
    """

    def __init__(self, config: ModelConfig, experts: Experts) -> None:
        super().__init__()
        count, hidden, width = config.num_experts, config.hidden_size, config.intermediate_size
        if experts == "mxfp4":
            byte = torch.uint8
            self.gate_up_proj_blocks = _parameter(count, 2 * width, hidden // 32, 16, dtype=byte)
            self.gate_up_proj_scales = _parameter(count, 2 * width, hidden // 32, dtype=byte)
            self.down_proj_blocks = _parameter(count, hidden, width // 32, 16, dtype=byte)
            self.down_proj_scales = _parameter(count, hidden, width // 32, dtype=byte)
        else:
            self.gate_up_proj = _parameter(count, hidden, 2 * width)
            self.down_proj = _parameter(count, width, hidden)
        self.gate_up_proj_bias = _parameter(count, 2 * width)
        self.down_proj_bias = _parameter(count, hidden)


class SparseMLP(nn.Module):
    """Router and experts: (N, hidden) → (N, hidden)."""

    def __init__(self, config: ModelConfig, experts: Experts) -> None:
        super().__init__()
        self.router = Linear(config.hidden_size, config.num_experts, bias=True)
        self.experts = ExpertWeights(config, experts)
        self.mxfp4 = experts == "mxfp4"
        self.attributes = (config.top_k, config.swiglu_alpha, config.swiglu_limit)

    def forward(self, x: Tensor) -> Tensor:
        """Send each token of (N, hidden) through its top-k experts."""
        weights = self.experts
        gate_up_bias, down_bias = (
            b.to(x.dtype) for b in (weights.gate_up_proj_bias, weights.down_proj_bias)
        )
        output: Tensor
        if self.mxfp4:
            gate_up = (weights.gate_up_proj_blocks, weights.gate_up_proj_scales)
            down = (weights.down_proj_blocks, weights.down_proj_scales)
            output = torch.ops.gptoss.moe_dispatch_mxfp4(
                x, self.router(x), *gate_up, gate_up_bias, *down, down_bias, *self.attributes
            )
        else:
            output = torch.ops.gptoss.moe_dispatch(
                x,
                self.router(x),
                weights.gate_up_proj,
                gate_up_bias,
                weights.down_proj,
                down_bias,
                *self.attributes,
            )
        return output


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: ModelConfig, layer: int, experts: Experts) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SparseMLP(config, experts)

    def forward(
        self, x: Tensor, batch: int, past: KeyValue, call: "Call"
    ) -> tuple[Tensor, KeyValue]:
        """Run (N, hidden) through attention and experts; returns it with the layer's present keys
        and values.
        """
        attended, present = self.self_attn(self.input_layernorm(x), batch, past, call)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Trunk(nn.Module):
    """Embedding, layers and final norm, under Hugging Face's prefix `model.`."""

    def __init__(self, config: ModelConfig, experts: Experts) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(
            config.vocab_size, config.hidden_size, _weight=_embedding(config)
        )
        self.embed_tokens.weight.requires_grad_(False)
        self.layers = nn.ModuleList(
            Block(config, layer, experts) for layer in range(config.num_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


def _embedding(config: ModelConfig) -> Tensor:
    return torch.empty(config.vocab_size, config.hidden_size)


class Call:
    """What every layer of one forward pass shares: lengths (B) and the rotary cos and sin (B, S,
    D/2).
    """

    def __init__(
        self,
        past_lengths: Tensor,
        new_lengths: Tensor,
        new: int,
        inv_freq: Tensor,
        attention_factor: float,
    ) -> None:
        # (B, S)
        positions = past_lengths.unsqueeze(1) + torch.arange(new, device=past_lengths.device)
        angles = positions.to(inv_freq.dtype).unsqueeze(2) * inv_freq
        self.past_lengths, self.new_lengths = past_lengths, new_lengths
        self.cos, self.sin = angles.cos() * attention_factor, angles.sin() * attention_factor


class GptOss(nn.Module):
    """gpt-oss for causal language modelling.

    `compute` is the dtype of the activations: float32 for parity, bfloat16 to see what the
    published model does.
    """

    inv_freq: Tensor

    def __init__(
        self, config: ModelConfig, experts: Experts, compute: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.config = config
        self.compute = compute
        self.model = Trunk(config, experts)
        self.lm_head = (
            None
            if config.tie_word_embeddings
            else Linear(config.hidden_size, config.vocab_size, False)
        )
        # a computed constant, real even when the weights are on the meta device
        with torch.device("cpu"):
            inv_freq, self.attention_factor = inverse_frequencies(config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, compute: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Self:
        """Return the model with the checkpoint's weights, mapped from its files when `device` is
        the CPU.

        `device="meta"` gives the shapes and dtypes alone and reads no weight byte.
        """
        with torch.device("meta"):
            model = cls(
                checkpoint.config, "mxfp4" if checkpoint.layout == "hf-mxfp4" else "dense", compute
            )
        if device == "meta":
            state = {name: info.meta() for name, info in checkpoint.tensors.items()}
        else:
            state = {name: checkpoint.load(name).to(device) for name in checkpoint.tensors}
            model.inv_freq = model.inv_freq.to(device)
        model.load_state_dict(state, strict=True, assign=True)
        return model.requires_grad_(False).eval()

    def new_cache(
        self, batch: int, capacity: int, ring: int | None = None, dtype: torch.dtype | None = None
    ) -> list[KeyValue]:
        """Return zeroed caches: (B, K, C, D) keys and values a layer.

        Args:
            batch: B.
            capacity: C of the full layers, in tokens.
            ring: C of the window layers; all of `capacity` when None.
            dtype: of the caches; `compute` when None.
        """
        config = self.config

        def zeros(layer: int) -> Tensor:
            slots = ring if ring is not None and config.window_of(layer) > 0 else capacity
            shape = (batch, config.num_kv_heads, slots, config.head_dim)
            return torch.zeros(shape, dtype=dtype or self.compute, device=self.inv_freq.device)

        return [(zeros(layer), zeros(layer)) for layer in range(config.num_layers)]

    def forward(
        self,
        input_ids: Tensor,
        past_lengths: Tensor,
        new_lengths: Tensor,
        logit_positions: Tensor,
        past: Sequence[KeyValue],
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run one call.

        Args:
            input_ids: int64 (B, S), right-padded.
            past_lengths: int64 (B), tokens already cached.
            new_lengths: int64 (B), real tokens of this call.
            logit_positions: int64 (B, T), which of the S tokens to return logits for.
            past: keys and values (B, K, C, D) a layer, slot p mod C holding position p.

        Returns:
            Logits (B, T, V) in `compute`, and the present keys and values.

        Raises:
            InputError: a cache is too small for the call.
        """
        batch, new = input_ids.shape
        call = Call(past_lengths, new_lengths, new, self.inv_freq, self.attention_factor)
        x = self.model.embed_tokens(input_ids.flatten()).to(self.compute)  # (N, hidden)
        present = []
        for layer, key_value in zip(self.model.layers, past, strict=True):
            x, updated = layer(x, batch, key_value, call)
            present.append(updated)
        # (B, T)
        rows = logit_positions + new * torch.arange(batch, device=input_ids.device).unsqueeze(1)
        kept = self.model.norm(x.index_select(0, rows.flatten()))  # (B·T, hidden)
        if self.lm_head is None:
            logits = torch.ops.gptoss.linear(kept, self.model.embed_tokens.weight, None)
        else:
            logits = self.lm_head(kept)
        return logits.unflatten(0, (batch, -1)), present

    @torch.inference_mode()
    def score(self, token_ids: Sequence[int]) -> Tensor:
        """Return the logits of every position of one sequence, (T, V), computed in one pass."""
        ids = torch.tensor([token_ids], dtype=torch.int64, device=self.inv_freq.device)
        every = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        lengths = torch.zeros(1, dtype=torch.int64, device=ids.device)
        logits, _ = self(
            ids, lengths, lengths + ids.shape[1], every, self.new_cache(1, ids.shape[1])
        )
        return logits[0]  # type: ignore[no-any-return]
