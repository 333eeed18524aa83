"""Manifests: a field that says something else of the same graph and weights."""

from collections.abc import Callable
from typing import Any

from mutants.copied import Copied
from mutants.mutant import REFUSED, Change, table


def field(value: Any, *keys: str | int) -> Change:
    """Set a field, found by keys; `value` may be a function of the old value."""

    def change(copied: Copied) -> None:
        *above, last = keys
        place: Any = copied.manifest
        for key in above:
            place = place[key]
        place[last] = value(place[last]) if callable(value) else value

    return change


def exchanged(part: str, first: int, second: int) -> Change:
    """Exchange a name between two layers of the cache."""

    def change(copied: Copied) -> None:
        one, other = (copied.manifest["cache"][layer] for layer in (first, second))
        one[part], other[part] = other[part], one[part]

    return change


def _fewer_files(copied: Copied) -> None:
    copied.manifest["weights"]["files"] = []


def _keeps_one(copied: Copied) -> None:
    for layer in copied.manifest["cache"]:
        layer["sink_tokens"] = 1 if layer["window"] else 0


def _times(factor: float) -> Callable[[int], int]:
    return lambda old: int(old * factor)


MANIFESTS = table(
    "manifests",
    (
        "a full layer has a window",
        field(16, "cache", 1, "window"),
        "layers.1 cache window",
        "native: decode",
    ),
    (
        "a window of half the tokens",
        field(_times(0.5), "cache", 2, "window"),
        "layers.2 cache window",
        "native: decode",
    ),
    ("a kept first token", _keeps_one, "layers.0|layers.2 cache sink_tokens", "native: rewind"),
    ("twice the context", field(_times(2), "longest"), "longest", "native: every token"),
    ("half the context", field(_times(0.5), "longest"), "longest", "native: every token"),
    (
        "every eighth token ends a text",
        field(list(range(0, 2048, 8)), "eos_tokens"),
        "eos_tokens",
        "native: text",
    ),
    ("another type of cache", field("bfloat16", "kv_dtype"), "kv_dtype", "native: again"),
    (
        "past keys of two layers exchanged",
        exchanged("past_key", 1, 3),
        "layers.1|layers.3 cache past_key",
        "native: decode",
    ),
    (
        "present values of two layers exchanged",
        exchanged("present_value", 1, 3),
        "layers.1|layers.3 cache present_value",
        "native: decode",
    ),
    (
        "fewer heads in the cache",
        field(_times(0.5), "cache", 1, "kv_heads"),
        "layers.1 cache kv_heads",
        "native: again",
    ),
    ("a larger vocabulary", field(_times(2), "vocab_size"), "vocab_size", REFUSED),
    ("a later ONNX Runtime", field("99.0", "onnxruntime"), "onnxruntime|ONNX", REFUSED),
    ("no weight files", _fewer_files, "weights.files", REFUSED),
    (
        "an op that no library has",
        field("SinkAttention2", "ops", 2, "name"),
        "ops",
        "native: again",
    ),
)
