"""Read the rotary embedding's settings out of a `config.json`, in every spelling transformers has
written.

Published gpt-oss files say `rope_theta` and `rope_scaling: {rope_type, factor, …}` at top level,
older ones `type` for `rope_type`; transformers 5 writes `rope_parameters: {rope_theta, rope_type,
factor, …}`. What a missing key means follows `standardize_rope_params` and
`_compute_yarn_parameters` in `transformers/modeling_rope_utils.py` (5.23).
"""

import math
from typing import Any

from gptoss_onnx.checkpoint.fields import Fields

BETA_FAST = 32.0
BETA_SLOW = 1.0


def read_rope(fields: Fields, max_position_embeddings: int) -> dict[str, Any]:
    """Return the fields of a RopeConfig; what is wrong is noted in `fields.problems`.

    `rope_scaling` wins over `rope_parameters` where both are given, as in transformers. Neither (or
    null) is an error: transformers 4 read that as plain RoPE, transformers 5 reads it as gpt-oss's
    YaRN.
    """
    key = "rope_scaling" if fields.document.get("rope_scaling") else "rope_parameters"
    if not fields.document.get(key):
        fields.problems.add(
            "rope_scaling: missing (and no rope_parameters), expected one with rope_type 'yarn' or "
            "'default'"
        )
        return _plain(1.0, max_position_embeddings)
    rope = Fields(fields.object(key), fields.problems, f"{key}.")
    theta = (rope if "rope_theta" in rope.document else fields).number("rope_theta", above=1.0)
    for source in (fields, rope):
        if source.document.get("partial_rotary_factor", 1.0) not in (1, None):
            source.wrong("partial_rotary_factor", "1 (every dimension of a head is rotated)")
    if rope.document.keys() & {"sliding_attention", "full_attention"}:
        fields.problems.add(
            f"{key}: found settings per layer type, expected one set for all layers"
        )
        return _plain(theta, max_position_embeddings)
    spelling = (
        "type" if "rope_type" not in rope.document and "type" in rope.document else "rope_type"
    )
    kind = "default"
    if spelling in rope.document:
        kind = rope.one_of(spelling, ("yarn", "default"))
    if kind != "yarn":
        return _plain(theta, max_position_embeddings)
    return {"theta": theta, "kind": kind, **_read_yarn(fields, rope, max_position_embeddings)}


def _read_yarn(fields: Fields, rope: Fields, max_position_embeddings: int) -> dict[str, Any]:
    length_key = "original_max_position_embeddings"
    # transformers lets a top-level value win, and falls back on the maximum length when there is
    # none.
    holder = next((source for source in (fields, rope) if length_key in source.document), None)
    original = holder.integer(length_key) if holder else max_position_embeddings
    if "factor" in rope.document and not rope.has("factor"):
        factor = max_position_embeddings / original if original else 1.0
    else:
        factor = rope.number("factor")
    return {
        "factor": factor,
        "beta_fast": _or_default(rope, "beta_fast", BETA_FAST),
        "beta_slow": _or_default(rope, "beta_slow", BETA_SLOW),
        "original_max_position_embeddings": original,
        "truncate": rope.boolean("truncate", absent=True),
        "attention_factor": _read_attention_factor(rope, factor),
    }


def _read_attention_factor(rope: Fields, factor: float) -> float | None:
    """The factor on cos and sin where the file fixes it, directly or by DeepSeek's mscale pair;
    else None.
    """
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


def _plain(theta: float, max_position_embeddings: int) -> dict[str, Any]:
    return {
        "theta": theta,
        "kind": "default",
        "factor": 1.0,
        "beta_fast": 1.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": max_position_embeddings,
        "truncate": False,
        "attention_factor": None,
    }
