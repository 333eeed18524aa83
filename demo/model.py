"""The gpt-oss architecture written for fast training of a small model on a CPU.

Legend: B batch, S sequence, N = B·S tokens, V vocabulary, X hidden width, H query heads, K kv
    heads,
D head dim, E experts, T experts per token, I expert width. Parameters carry their Hugging Face
names; expert weights lie as the MXFP4 checkpoint stores them (reduction axis last), so export is a
packing.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mxfp4 import fake_quantize
from torch import Tensor, nn
from transformers import GptOssConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

WIDEN = 8  # components added to each head for the sink; one is needed, eight keep rows aligned


class PermuteRows(torch.autograd.Function):
    """rows[order], whose gradient is a gather too: PyTorch would scatter, which is serial on
    CPU.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """rows (R, X), order and its inverse (R) int64 → (R, X)."""
        ctx.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Gradient (R, X) of the gathered rows → of the rows."""
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


class Attention(nn.Module):
    """Grouped-query attention with one learned sink logit per query head."""

    def __init__(self, config: GptOssConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        assert config.layer_types is not None
        self.windowed = config.layer_types[layer] == "sliding_attention"
        self.window = config.sliding_window or 0
        hidden, dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden, self.heads * dim)
        self.k_proj = nn.Linear(hidden, self.kv_heads * dim)
        self.v_proj = nn.Linear(hidden, self.kv_heads * dim)
        self.o_proj = nn.Linear(self.heads * dim, hidden)
        # Spread over the heads, so that from the start some ignore their sink and some lean on it.
        self.sinks = nn.Parameter(torch.linspace(0.0, 3.0, self.heads))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (B, S, X), cos and sin (S, D/2) → (B, S, X). S is a multiple of the window."""
        batch, length, _ = x.shape
        query = _rotate(self._heads(self.q_proj(x)), cos, sin)  # (B, H, S, D)
        key = _rotate(self._heads(self.k_proj(x)), cos, sin)  # (B, K, S, D)
        value = self._heads(self.v_proj(x))  # (B, K, S, D)
        # The sink is a key no query resembles and whose value is zero: one more component, 1 in
        # each query and the sink's logit in that key, lets the fused kernel do the rest.
        query = _widen(query, 1.0)  # (B, H, S, D+8)
        group = self.heads // self.kv_heads
        key = _widen(key, 0.0).repeat_interleave(group, 1)  # (B, H, S, D+8)
        value = _widen(value, 0.0).repeat_interleave(group, 1)
        sink = F.pad(self.sinks.view(1, -1, 1, 1) / self.head_dim**-0.5, (self.head_dim, WIDEN - 1))
        attend = self._attend_window if self.windowed else self._attend_all
        out = attend(query, key, value, sink)[..., : self.head_dim]  # (B, H, S, D)
        result: Tensor = self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))
        return result

    def _attend_all(self, query: Tensor, key: Tensor, value: Tensor, sink: Tensor) -> Tensor:
        """Sees every earlier token. A blank query before the first lines the sink up with the
        diagonal.
        """
        key = torch.cat([sink.expand(len(key), -1, -1, -1), key], 2)  # (B, H, S+1, D+8)
        query, value = F.pad(query, (0, 0, 1, 0)), F.pad(value, (0, 0, 1, 0))
        scale = self.head_dim**-0.5
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)[
            :, :, 1:
        ]

    def _attend_window(self, query: Tensor, key: Tensor, value: Tensor, sink: Tensor) -> Tensor:
        """Sees its window: stretches of W queries, each against its own and the previous W keys."""
        window, batch = self.window, len(query)
        query = query.unflatten(2, (-1, window)).transpose(1, 2).flatten(0, 1)  # (B·S/W, H, W, D+8)
        # (B·S/W, H, 2W, D+8)
        key, value = _with_previous(key, window), _with_previous(value, window)
        key = torch.cat([sink.expand(len(key), -1, -1, -1), key], 2)  # (B·S/W, H, 2W+1, D+8)
        value = F.pad(value, (0, 0, 1, 0))
        distance = torch.arange(window)[:, None] + window - torch.arange(2 * window)  # (W, 2W)
        # (S/W, W, 2W)
        near = ((distance >= 0) & (distance < window)).repeat(len(key) // batch, 1, 1)
        near[0, :, :window] = False  # nothing precedes the first stretch
        # (B·S/W, 1, W, 2W+1)
        mask = F.pad(near, (1, 0), value=True).repeat(batch, 1, 1).unsqueeze(1)
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.head_dim**-0.5
        )
        out = out.reshape(batch, -1, *out.shape[1:])  # (B, S/W, H, W, D+8)
        return out.transpose(1, 2).flatten(2, 3)  # (B, H, S, D+8)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)  # (B, S, n·D) → (B, n, S, D)


class Experts(nn.Module):
    """Clamped-SwiGLU experts; weights pass through MXFP4 rounding on every use."""

    def __init__(self, config: GptOssConfig) -> None:
        super().__init__()
        experts, hidden, width = (
            config.num_local_experts,
            config.hidden_size,
            config.intermediate_size,
        )
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(experts, 2 * width))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))
        self.down_proj_bias = nn.Parameter(torch.zeros(experts, hidden))
        self.alpha, self.limit = config.swiglu_alpha, config.swiglu_limit

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """x (N, X), chosen (N, T) expert ids, weights (N, T) → (N, X)."""
        tokens, top_k = chosen.shape
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel()))
        counts = flat.bincount(minlength=self.gate_up_proj.shape[0]).tolist()
        rows = x.unsqueeze(1).expand(-1, top_k, -1).reshape(tokens * top_k, -1)
        rows = _permute_rows(rows, order, inverse)  # (N·T, X), grouped by expert
        # Gate and up rows alternate in the checkpoint; apart, the activation reads whole rows.
        weight, bias = _apart(fake_quantize(self.gate_up_proj)), _apart(self.gate_up_proj_bias)
        inner = clamped_swiglu(_grouped_linear(rows, weight, bias, counts), self.alpha, self.limit)
        out = _grouped_linear(inner, fake_quantize(self.down_proj), self.down_proj_bias, counts)
        out = _permute_rows(out, inverse, order).view(tokens, top_k, -1)  # (N, T, X)
        return (out * weights.unsqueeze(-1)).sum(1)


class Router(nn.Module):
    """Top-k router: softmax over the chosen logits only."""

    def __init__(self, config: GptOssConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.num_local_experts, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(config.num_local_experts))
        self.top_k = config.num_experts_per_tok

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, X) → chosen (N, T), weights (N, T), load-balancing loss ()."""
        logits = F.linear(x, self.weight, self.bias)  # (N, E)
        top, chosen = logits.topk(self.top_k, -1)
        experts = logits.shape[-1]
        share = chosen.flatten().bincount(minlength=experts) / len(x)
        # Switch Transformer (arXiv:2101.03961, eq. 4-6), as transformers computes it for gpt-oss.
        balance = experts * (share * logits.softmax(-1).mean(0)).sum()
        return chosen, top.softmax(-1), balance


class Block(nn.Module):
    """Attention and mixture of experts, each normalised before and added to the stream."""

    def __init__(self, config: GptOssConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = nn.ModuleDict({"router": Router(config), "experts": Experts(config)})

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, S, X) → the same shape, and the layer's load-balancing loss ()."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        flat = self.post_attention_layernorm(x).flatten(0, 1)  # (N, X)
        chosen, weights, balance = self.mlp["router"](flat)
        return x + self.mlp["experts"](flat, chosen, weights).view_as(x), balance


class Decoder(nn.Module):
    """Everything but lm_head; a module of its own so that names match the checkpoint's."""

    def __init__(self, config: GptOssConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)


class TrainingModel(nn.Module):
    """gpt-oss with its loss."""

    def __init__(self, config: GptOssConfig) -> None:
        super().__init__()
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        inv_freq, self.rope_scale = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self._initialise(config.num_hidden_layers)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, S) int64 → logits (B, S, V) and the mean load-balancing loss ()."""
        length = ids.shape[1]
        position = torch.arange(length)
        angle = position[:, None] * self.get_buffer("inv_freq")  # (S, D/2)
        cos, sin = angle.cos() * self.rope_scale, angle.sin() * self.rope_scale
        x = self.model.embed_tokens(ids)
        balances = []
        for block in self.model.layers:
            x, balance = block(x, cos, sin)
            balances.append(balance)
        return self.lm_head(self.model.norm(x)), torch.stack(balances).mean()

    def _initialise(self, layers: int) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2 or name.endswith("proj_bias"):
                continue
            std = 0.5 if "embed" in name else parameter.shape[-1] ** -0.5
            if "o_proj" in name or "down_proj" in name:
                std /= (2 * layers) ** 0.5  # keeps the stream's variance near the embedding's
            nn.init.normal_(parameter, std=std)
            if name.endswith("gate_up_proj"):
                # up enters as (up + 1): a smaller start keeps that near 1.
                parameter.data[:, 1::2] *= 0.5
        for name, parameter in self.named_parameters():
            if name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias")):
                nn.init.zeros_(parameter)


def clamped_swiglu(gate_up: Tensor, alpha: float, limit: float) -> Tensor:
    """(R, 2I), gates then ups → (R, I); the formula is `swiglu` of openai/gpt-oss."""
    gate, up = gate_up.chunk(2, -1)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def _apart(interleaved: Tensor) -> Tensor:
    """(E, 2I, …) with even rows gate and odd rows up → the gates, then the ups."""
    pairs = interleaved.reshape(len(interleaved), -1, 2, *interleaved.shape[2:])  # (E, I, 2, …)
    return pairs.transpose(1, 2).flatten(1, 2)


def _permute_rows(rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    permuted: Tensor = PermuteRows.apply(rows, order, inverse)  # type: ignore[no-untyped-call]  # torch leaves it bare
    return permuted


def _grouped_linear(rows: Tensor, weight: Tensor, bias: Tensor, counts: list[int]) -> Tensor:
    """rows (R, in) sorted by expert, weight (E, out, in), bias (E, out) → (R, out)."""
    groups = zip(rows.split(counts), weight.unbind(0), bias.unbind(0), strict=True)
    return torch.cat([F.linear(*group) for group in groups])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotary embedding of x (B, n, S, D)."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _widen(x: Tensor, fill: float) -> Tensor:
    """(B, n, S, D) → (B, n, S, D+8): `fill` in the next component, 0 in the rest."""
    return F.pad(F.pad(x, (0, 1), value=fill), (0, WIDEN - 1))


def _with_previous(x: Tensor, window: int) -> Tensor:
    """(B, H, S, d) → (B·S/W, H, 2W, d): each stretch of W behind the one before it."""
    blocks = x.unflatten(2, (-1, window))  # (B, H, S/W, W, d)
    before = F.pad(blocks, (0, 0, 0, 0, 1, 0))[:, :, :-1]
    return torch.cat([before, blocks], 3).transpose(1, 2).flatten(0, 1)
