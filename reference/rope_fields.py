"""Read the rotary embedding's settings out of a `config.json`, in every spelling of transformers.

Files of transformers 4 say `rope_theta` and `rope_scaling: {rope_type, factor, …}` at top level,
older ones `type` for `rope_type`; transformers 5 writes `rope_parameters: {rope_theta, rope_type,
factor, …}`. What a missing key means follows `standardize_rope_params` and the
`_compute_*_parameters` in `transformers/modeling_rope_utils.py` (5.23).
"""

import math
from collections.abc import Mapping
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.reference.config import RopeConfig, RopeKind

BETA_FAST = 32.0
BETA_SLOW = 1.0
THETA = 10000.0  # what transformers takes where a file says nothing
KINDS: tuple[RopeKind, ...] = ("default", "linear", "yarn", "llama3")
_NOT_READ = {
    "dynamic": ": its frequencies change with the length, so cached keys would go stale",
    "longrope": ": its frequencies change with the length, so cached keys would go stale",
}


def read_rope(
    fields: Fields,
    head_dim: int,
    longest: int,
    *,
    kinds: tuple[RopeKind, ...] = KINDS,
    absent: Mapping[str, Any] | None = None,
    theta: float = THETA,
    partial: float | None = None,
    interleaved: bool = False,
) -> RopeConfig:
    """Return the rotary embedding; what is wrong is noted in `fields.problems`.

    `rope_scaling` wins over `rope_parameters` where both are given, as in transformers.

    Args:
        fields: of `config.json`.
        head_dim: dimensions of a head.
        longest: the model's `max_position_embeddings`.
        kinds: what this architecture may say.
        absent: the settings where neither key is there or both are null; None means plain
            frequencies.
        theta: what a missing rope_theta means.
        partial: share of a head's dimensions that rotate if the file does not say how many; None if
            this architecture always rotates all of them.
        interleaved: dimension 2i pairs with 2i + 1.
    """
    key = "rope_scaling" if fields.value("rope_scaling") else "rope_parameters"
    settings = fields.object(key) if fields.value(key) else absent or {}
    rope = Fields(settings, fields.problems, f"{key}.")
    holder = rope if "rope_theta" in rope.document else fields
    base = holder.number("rope_theta", theta, above=1.0)
    width = _read_width(fields, rope, head_dim, partial)
    common: dict[str, Any] = {"theta": base, "width": width, "interleaved": interleaved}
    if rope.document.keys() & {"sliding_attention", "full_attention"}:
        fields.problems.add(
            f"{key}: found settings per layer type, expected one set for all layers"
        )
        return _plain(common, longest)
    spelling = (
        "type" if "rope_type" not in rope.document and "type" in rope.document else "rope_type"
    )
    kind = "default"
    if spelling in rope.document:
        kind = rope.one_of(spelling, kinds, _NOT_READ.get(str(rope.document[spelling]), ""))
    if kind == "linear":
        return RopeConfig(
            **common | _plain_scaling(longest), kind="linear", factor=rope.number("factor")
        )
    if kind == "yarn":
        return RopeConfig(**common, kind="yarn", **_read_yarn(fields, rope, longest))
    if kind == "llama3":
        return RopeConfig(**common, kind="llama3", **_read_llama3(rope))
    return _plain(common, longest)


def _read_width(fields: Fields, rope: Fields, head_dim: int, partial: float | None) -> int:
    """The dimensions that rotate: `int(head_dim · partial_rotary_factor)`, as in transformers."""
    if partial is None:
        for source in (fields, rope):
            if source.value("partial_rotary_factor") not in (1, None):
                source.wrong("partial_rotary_factor", "1 (every dimension of a head is rotated)")
        return head_dim
    holder = next(
        (source for source in (rope, fields) if source.has("partial_rotary_factor")), None
    )
    share = partial if holder is None else holder.number("partial_rotary_factor")
    width = int(head_dim * share)
    if head_dim and (width % 2 or not 0 < width <= head_dim):
        (holder or fields).wrong(
            "partial_rotary_factor", f"a share of head_dim = {head_dim} that is an even number"
        )
    return width


def _read_yarn(fields: Fields, rope: Fields, longest: int) -> dict[str, Any]:
    length_key = "original_max_position_embeddings"
    # transformers lets a top-level value win, and falls back on the maximum length.
    holder = next((source for source in (fields, rope) if length_key in source.document), None)
    original = holder.integer(length_key) if holder else longest
    if "factor" in rope.document and not rope.has("factor"):
        factor = longest / original if original else 1.0
    else:
        factor = rope.number("factor")
    return {
        "factor": factor,
        "beta_fast": _or_default(rope, "beta_fast", BETA_FAST),
        "beta_slow": _or_default(rope, "beta_slow", BETA_SLOW),
        "original_longest": original,
        "truncate": rope.boolean("truncate", absent=True),
        "attention_factor": _read_attention_factor(rope, factor),
    }


def _read_llama3(rope: Fields) -> dict[str, Any]:
    high, low = rope.number("high_freq_factor"), rope.number("low_freq_factor")
    if high <= low:
        rope.wrong("high_freq_factor", f"more than low_freq_factor = {low:g}")
    return {
        "factor": rope.number("factor"),
        "beta_fast": high,
        "beta_slow": low,
        "original_longest": rope.integer("original_max_position_embeddings"),
        "truncate": False,
        "attention_factor": None,
    }


def _read_attention_factor(rope: Fields, factor: float) -> float | None:
    """The factor on cos and sin where the file fixes it, directly or by DeepSeek's mscale pair."""
    if rope.has("attention_factor"):
        return rope.number("attention_factor")
    if rope.document.get("mscale") and rope.document.get("mscale_all_dim"):
        mscale, all_dim = rope.number("mscale"), rope.number("mscale_all_dim")
        ratio = _mscale(factor, mscale) / _mscale(factor, all_dim)
        if math.isfinite(ratio):
            return ratio
        rope.wrong("mscale", "a number whose scale is finite")
    return None


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _or_default(rope: Fields, key: str, default: float) -> float:
    """transformers takes its default for a missing, null or zero value alike."""
    return rope.number(key) if rope.document.get(key) else default


def _plain(settings: dict[str, Any], longest: int) -> RopeConfig:
    return RopeConfig(**settings | _plain_scaling(longest), kind="default", factor=1.0)


def _plain_scaling(longest: int) -> dict[str, Any]:
    return {
        "beta_fast": 1.0,
        "beta_slow": 1.0,
        "original_longest": longest,
        "truncate": False,
        "attention_factor": None,
    }
