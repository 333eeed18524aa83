"""The PyTorch reference: one decoder for every architecture, whose configuration holds the choices.

The exporter traces it and validation compares with it. Its parameters on the meta device state the
names (canonical, see `architecture.py`), shapes and dtypes of a checkpoint.

Legend: B batch, S new tokens, N = B·S, C cache capacity, K kv heads, D head dim, R rotary width,
T kept positions, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from gptoss_onnx.checkpoint.open import StoredCheckpoint
from gptoss_onnx.reference.config import DecoderConfig, ExpertsConfig, LayerConfig
from gptoss_onnx.reference.layers import (
    Attention,
    Call,
    FeedForward,
    KeyValue,
    Linear,
    MixtureOfExperts,
    Norm,
)
from gptoss_onnx.reference.products import add_products
from gptoss_onnx.reference.rope import inverse_frequencies

LONGEST_WAVE = 10000.0  # of sinusoidal positions: Vaswani et al. 2017, section 3.5


class Block(nn.Module):
    """One layer, its norms before the parts or behind their residual sums."""

    def __init__(self, config: DecoderConfig, layer: LayerConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.input_layernorm = Norm(hidden, config.norm)
        self.self_attn = Attention(hidden, layer.attention, config.norm)
        self.post_attention_layernorm = Norm(hidden, config.norm)
        part = layer.feed_forward
        self.mlp = (
            MixtureOfExperts(hidden, part)
            if isinstance(part, ExpertsConfig)
            else FeedForward(hidden, part)
        )
        self.pre = config.placement == "pre"

    def forward(self, x: Tensor, past: KeyValue, call: Call) -> tuple[Tensor, KeyValue]:
        """Run (N, hidden) through both parts; returns it with the present keys and values."""
        if self.pre:
            attended, present = self.self_attn(self.input_layernorm(x), past, call)
            x = x + attended
            return x + self.mlp(self.post_attention_layernorm(x)), present
        attended, present = self.self_attn(x, past, call)
        x = self.input_layernorm(x + attended)
        return self.post_attention_layernorm(x + self.mlp(x)), present


class Trunk(nn.Module):
    """Embeddings, layers and final norm, under the prefix `model.`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        vocabulary, hidden = config.vocab_size, config.hidden_size
        self.embed_tokens = _embedding(vocabulary, hidden)
        if config.positions == "learned":
            self.embed_positions = _embedding(config.longest, hidden)
        if config.embedding_norm:
            self.embed_layernorm = Norm(hidden, config.norm)
        self.layers = nn.ModuleList(Block(config, layer) for layer in config.layers)
        if config.final_norm:
            self.norm = Norm(hidden, config.norm)


def _embedding(count: int, size: int) -> nn.Embedding:
    embedding = nn.Embedding(count, size, _weight=torch.empty(count, size))
    embedding.weight.requires_grad_(False)
    return embedding


class Decoder(nn.Module):
    """A decoder for causal language modelling.

    `compute` is the dtype of the activations: float32 for parity, bfloat16 to see what a published
    model does.
    """

    def __init__(self, config: DecoderConfig, compute: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.compute = config, compute
        self.model = Trunk(config)
        self.lm_head = None if config.tied else Linear(config.hidden_size, config.vocab_size, False)
        self.rope_factor = 1.0
        # Computed constants, real even when the weights are on the meta device.
        with torch.device("cpu"):
            for name, value in self._constants().items():
                self.register_buffer(name, value, persistent=False)

    def _constants(self) -> dict[str, Tensor]:
        """Return what positions are computed with, by name."""
        config, constants = self.config, {}
        if config.rope is not None:
            constants["inv_freq"], self.rope_factor = inverse_frequencies(config.rope)
        if any(layer.attention.alibi for layer in config.layers):
            constants["alibi_slopes"] = alibi_slopes(config.layers[0].attention.heads)
        if config.positions == "sinusoidal":
            steps = torch.arange(0, config.hidden_size, 2, dtype=torch.float32) / config.hidden_size
            constants["wave_freq"] = LONGEST_WAVE**-steps
        return constants

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the constants that the model computes, which no checkpoint holds."""
        return tuple(name for name, _ in self.named_buffers())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embed_tokens.weight.device

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: StoredCheckpoint[DecoderConfig],
        compute: torch.dtype = torch.float32,
        device: str = "cpu",
        layers: int | None = None,
    ) -> Self:
        """Return the model with a checkpoint's weights, mapped from its files if `device` is `cpu`.

        `device="meta"` gives the shapes and dtypes alone and reads no weight byte. Layers from
        `layers` on stay on the meta device: `keep_layers` is to take them away.
        """
        with torch.device("meta"):
            model = cls(checkpoint.config, compute)
            add_products(model, checkpoint.products)
        if device == "meta":
            state = {name: stored.meta() for name, stored in checkpoint.parameters.items()}
        else:
            count = len(checkpoint.config.layers)
            left_out = range(count if layers is None else layers, count)
            without = tuple(f"model.layers.{layer}." for layer in left_out)
            state = {
                name: stored.meta()
                if name.startswith(without)
                else checkpoint.load_parameter(name).to(device)
                for name, stored in checkpoint.parameters.items()
            }
            for name, buffer in model.named_buffers():
                setattr(model, name, buffer.to(device))
        model.load_state_dict(state, strict=True, assign=True)
        return model.requires_grad_(False).eval()

    def keep_layers(self, layers: Sequence[int]) -> None:
        """Leave only these layers, in this order, and renumber them."""
        kept = tuple(self.config.layers[layer] for layer in layers)
        self.config = dataclasses.replace(self.config, layers=kept)
        self.model.layers = nn.ModuleList(self.model.layers[layer] for layer in layers)

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

        def zeros(layer: LayerConfig) -> Tensor:
            part = layer.attention
            slots = ring if ring is not None and part.window > 0 else capacity
            shape = (batch, part.kv_heads, slots, part.head_dim)
            return torch.zeros(shape, dtype=dtype or self.compute, device=self.device)

        return [(zeros(layer), zeros(layer)) for layer in self.config.layers]

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
            past: keys and values (B, K, C, D) a layer; slot p mod C holds position p.

        Returns:
            Logits (B, T, V) in `compute`, and the present keys and values.

        Raises:
            InputError: a cache is too small for the call.
        """
        batch, new = input_ids.shape
        x, present = self.hidden_states(input_ids, past_lengths, new_lengths, past)
        rows = logit_positions + new * torch.arange(batch, device=x.device).unsqueeze(1)  # (B, T)
        kept = x.index_select(0, rows.flatten())  # (B·T, hidden)
        return self.unembed(kept).unflatten(0, (batch, -1)), present

    def hidden_states(
        self,
        input_ids: Tensor,
        past_lengths: Tensor,
        new_lengths: Tensor,
        past: Sequence[KeyValue],
    ) -> tuple[Tensor, list[KeyValue]]:
        """Return what the last layer gives, (N, hidden), and the present keys and values; the
        arguments are those of `forward`.
        """
        batch, new = input_ids.shape
        columns = torch.arange(new, device=input_ids.device)
        positions = past_lengths.unsqueeze(1) + columns  # (B, S)
        x = self._embed(input_ids, positions, columns < new_lengths.unsqueeze(1))  # (N, hidden)
        call = self._call(batch, past_lengths, new_lengths, positions)
        present = []
        for layer, key_value in zip(self.model.layers, past, strict=True):
            x, updated = layer(x, key_value, call)
            present.append(updated)
        return x, present

    def unembed(self, x: Tensor) -> Tensor:
        """Return the logits (N, V) of what the last layer gave, (N, hidden)."""
        if self.config.final_norm:
            x = self.model.norm(x)
        if self.lm_head is None:
            return torch.ops.gptoss.linear(x, self.model.embed_tokens.weight, None)  # type: ignore[no-any-return]
        return self.lm_head(x)  # type: ignore[no-any-return]

    def _embed(self, input_ids: Tensor, positions: Tensor, real: Tensor) -> Tensor:
        """Return the embedded tokens (N, hidden); `real` (B, S) tells tokens from padding."""
        x = self.model.embed_tokens(input_ids.flatten()).to(self.compute)
        if self.config.positions == "learned":
            # Padding may lie beyond the table, whose end no token may pass.
            places = torch.where(real, positions, torch.zeros_like(positions))
            x = x + self.model.embed_positions(places.flatten()).to(self.compute)
        if self.config.positions == "sinusoidal":
            angles = positions.to(torch.float32).flatten().unsqueeze(1) * self.get_buffer(
                "wave_freq"
            )
            waves = torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)  # (N, hidden)
            x = x + waves.to(self.compute)
        if self.config.embedding_norm:
            x = self.model.embed_layernorm(x)
        return x  # type: ignore[no-any-return]

    def _call(
        self, batch: int, past_lengths: Tensor, new_lengths: Tensor, positions: Tensor
    ) -> Call:
        rotation: tuple[Tensor | None, Tensor | None] = (None, None)
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        if self.config.rope is not None:
            rotation = self._rotation(positions)
            parts = [layer.attention for layer in self.config.layers if layer.attention.sink_tokens]
            for window in sorted({part.window for part in parts}):
                kept[window] = self._rotation(positions.clamp(max=window - 1))
        slopes = dict(self.named_buffers()).get("alibi_slopes")
        return Call(batch, past_lengths, new_lengths, rotation, kept, slopes)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin (B, S, R/2) of positions (B, S), times the factor of YaRN."""
        inv_freq = self.get_buffer("inv_freq")
        angles = positions.to(inv_freq.dtype).unsqueeze(2) * inv_freq
        return angles.cos() * self.rope_factor, angles.sin() * self.rope_factor

    @torch.inference_mode()
    def score(self, token_ids: Sequence[int]) -> Tensor:
        """Return the logits of every position of one sequence, (T, V), computed in one pass."""
        ids = torch.tensor([token_ids], dtype=torch.int64, device=self.device)
        every = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        past = torch.zeros(1, dtype=torch.int64, device=ids.device)
        logits, _ = self(ids, past, past + ids.shape[1], every, self.new_cache(1, ids.shape[1]))
        return logits[0]  # type: ignore[no-any-return]


def alibi_slopes(heads: int) -> Tensor:
    """Return the slope of each head, float32 (H): Press et al. 2022, arXiv 2108.12409.

    Powers of 2^(−8/n) for n a power of two; further heads take every other one of the next power.
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (index + 1) / power) for index in range(power)]
    slopes += [2 ** (-4 * (2 * index + 1) / power) for index in range(heads - power)]
    return torch.tensor(slopes, dtype=torch.float32)
