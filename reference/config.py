"""DecoderConfig: every number and every choice that fixes one decoder, frozen and complete.

An architecture (`reference/architectures/`) reads it from a checkpoint's `config.json`. Nothing
here has a default: what an architecture does not have is said with None, False or 0. A choice
exists only where two architectures need it.
"""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["swiglu", "silu", "gelu", "gelu_tanh", "relu"]
RopeKind = Literal["default", "linear", "yarn", "llama3"]
Storage = Literal["mxfp4", "columns", "rows"]


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding, plain (`default`) or with scaled frequencies.

    The first `width` dimensions of a head rotate; `interleaved` pairs dimension 2i with 2i + 1,
    else i pairs with i + width/2. `factor` stretches the context of `original_longest` tokens. For
    `yarn`, `beta_fast` and `beta_slow` are rotations over that context, `truncate` rounds the ends
    of the ramp to whole dimensions (gpt-oss does not), and `attention_factor` multiplies cos and
    sin (None: 0.1·ln(factor) + 1). For `llama3` the betas are `high_freq_factor` and
    `low_freq_factor`. What a kind does not use is 1, False or None.
    """

    theta: float
    kind: RopeKind
    width: int
    interleaved: bool
    factor: float
    beta_fast: float
    beta_slow: float
    original_longest: int
    truncate: bool
    attention_factor: float | None


@dataclass(frozen=True)
class NormConfig:
    """Root-mean-square norm with a weight (`rms`), or layer norm with weight and bias (`layer`)."""

    kind: Literal["rms", "layer"]
    eps: float


@dataclass(frozen=True)
class AttentionConfig:
    """Attention of one layer.

    `projections` says how the checkpoint stores query, key and value: as three matrices, `stacked`
    in one (all queries, then keys, then values), or one triple after the other `by_head`. `scale`
    multiplies the scores. `window` is in tokens, the query's own included; 0 sees everything. Of a
    window, the first `sink_tokens` tokens of the sequence stay visible (StreamingLLM), with
    `sink_bias` added to their scores. `sinks` is another thing: a learned logit per head that joins
    the softmax. `qk_norm` normalises each head of query and key before the rotation.
    """

    heads: int
    kv_heads: int
    head_dim: int
    projections: Literal["separate", "stacked", "by_head"]
    bias: bool
    output_bias: bool
    transposed: bool
    sinks: bool
    qk_norm: bool
    window: int
    sink_tokens: int
    sink_bias: float
    rope: RopeConfig | None
    alibi: bool
    scale: float


@dataclass(frozen=True)
class FeedForwardConfig:
    """A dense feed-forward layer of `width`.

    For `swiglu`, silu(gate) · up; gate and up are one matrix where `fused`, gate first. The other
    activations have no gate. `transposed` weights are stored (in, out).
    """

    width: int
    activation: Activation
    bias: bool
    fused: bool
    transposed: bool


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of `count` experts of `width`, of which each token takes `top_k`.

    For `swiglu` the expert is (up + beta) · gate · σ(alpha · gate), gate clamped above and up on
    both sides by `limit`; plain SwiGLU is alpha 1, limit ∞, beta 0. `interleaved` gate and up
    alternate, else gate comes first. `normalize`: the shares are the softmax over the chosen
    experts, else over all of them. `storage`: `mxfp4`, or numbers as `columns` (E, in, out) or as
    `rows` (E, out, in).
    """

    count: int
    top_k: int
    width: int
    activation: Activation
    alpha: float
    limit: float
    beta: float
    normalize: bool
    router_bias: bool
    bias: bool
    storage: Storage
    interleaved: bool


@dataclass(frozen=True)
class LayerConfig:
    """One layer: attention, then a dense feed-forward part or a mixture of experts."""

    attention: AttentionConfig
    feed_forward: FeedForwardConfig | ExpertsConfig


@dataclass(frozen=True)
class DecoderConfig:
    """A whole decoder.

    `longest` is the most tokens of a sequence. Norms stand before attention and feed-forward
    (`pre`) or behind their residual sum (`post`). `positions` are added to the embedding: learned
    vectors, or sines and cosines. `tied`: lm_head is the embedding matrix.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    longest: int
    norm: NormConfig
    placement: Literal["pre", "post"]
    embedding_norm: bool
    final_norm: bool
    positions: Literal["learned", "sinusoidal"] | None
    tied: bool
    layers: tuple[LayerConfig, ...]

    @property
    def num_layers(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    @property
    def rope(self) -> RopeConfig | None:
        """The rotary embedding that all rotating layers share; None where no layer rotates."""
        ropes = {layer.attention.rope for layer in self.layers} - {None}
        assert len(ropes) <= 1, "an architecture with several rotary embeddings"
        return next(iter(ropes), None)

    @property
    def windows(self) -> tuple[int, ...]:
        """The window of every sliding layer, in tokens; empty where all layers see everything."""
        each = (layer.attention.window for layer in self.layers)
        return tuple(window for window in each if window)

    @property
    def window(self) -> int:
        """The widest window, in tokens; 0 where no layer has one."""
        return max(self.windows, default=0)

    @property
    def scaled_beyond(self) -> int | None:
        """The length from which on a rotary embedding is scaled.

        None where no layer has a scaled one, or where no sequence may be longer than that.
        """
        rope = self.rope
        if rope is None or rope.kind == "default" or rope.original_longest >= self.longest:
            return None
        return rope.original_longest

    @property
    def layout(self) -> str:
        """How the experts are stored, as manifests name it."""
        storages = {
            layer.feed_forward.storage
            for layer in self.layers
            if isinstance(layer.feed_forward, ExpertsConfig)
        }
        return "hf-mxfp4" if "mxfp4" in storages else "hf-dense"
