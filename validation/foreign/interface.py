"""Which inputs and outputs of a graph are which: tokens, mask, positions, caches and logits.

B batch, S columns, P cached tokens, K kv heads, D head dim, V vocabulary.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from gptoss_onnx.errors import PackageError, ParityError
from gptoss_onnx.reference import DecoderConfig

# onnxruntime-genai and optimum-onnx: past_key_values.3.key, present.3.key; transformers.exporters:
# past_key_values.layers.3.keys, with a prefix where an input and an output have one name.
_LAYER = r"[._](?:layers\.)?([0-9]{1,4})\.(key|value)s?"
_PAST = re.compile(rf"(?:input\.)?past(?:_key_values)?{_LAYER}")
_PRESENT = re.compile(rf"(?:output\.)?(?:present(?:_key_values)?|past_key_values){_LAYER}")
# transformers.exporters make the width of a window layer an input, which its caches carry along
_WIDTH = re.compile(r"(?:input\.)?past_key_values\.layers\.([0-9]{1,4})\._sliding_window_tensor")
INPUT_IDS, MASK, POSITIONS, CACHE_POSITION, LOGITS_TO_KEEP = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "cache_position",
    "num_logits_to_keep",
)
_CALL_INPUTS = frozenset({INPUT_IDS, MASK, POSITIONS, CACHE_POSITION, LOGITS_TO_KEEP})
LOGITS = "logits"
_EXPECTED = (
    "input_ids, perhaps attention_mask, position_ids, cache_position and num_logits_to_keep, and "
    "past_key_values.N.key and .value of each layer"
)
_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16"}
_TYPES = _FLOATS | {"tensor(int64)": "int64", "tensor(int32)": "int32"}


@dataclass(frozen=True)
class CacheNames:
    """Key and value of one layer as inputs, which a graph for empty caches lacks, and as
    outputs.
    """

    past: tuple[str, str] | None
    present: tuple[str, str]


@dataclass(frozen=True)
class Interface:
    """A graph's inputs and outputs.

    Attributes:
        call_inputs: inputs beside the caches, as far as the graph has them.
        widths: inputs that are the width of a layer's window, with that.
        types: numpy's name of each input's element type.
        batch, columns: B and S of `input_ids` where the graph fixes them, else None.
        caches: one entry a layer.
        kv_dtype: element type of the caches.
    """

    call_inputs: frozenset[str]
    widths: Mapping[str, int]
    types: Mapping[str, str]
    batch: int | None
    columns: int | None
    caches: tuple[CacheNames, ...]
    kv_dtype: str

    @classmethod
    def of(cls, inference: Any, where: str, config: DecoderConfig) -> Self:
        """Return the interface of an `onnxruntime.InferenceSession`.

        Args:
            inference: the graph.
            where: its name in messages.
            config: of the checkpoint that the graph is held to.

        Raises:
            PackageError: the cases do not know an input, or lack an output.
            ParityError: layers, heads or vocabulary are not those of the checkpoint.
        """
        given = {value.name: value for value in inference.get_inputs()}
        made = {value.name: value for value in inference.get_outputs()}
        past, present = _layers(_PAST, given), _layers(_PRESENT, made)
        widths = _widths(given, config)
        call_inputs = frozenset(given.keys() - past.values() - widths.keys())
        if not call_inputs <= _CALL_INPUTS or INPUT_IDS not in call_inputs:
            raise PackageError(f"{where}: found the inputs {_shown(given)}, expected {_EXPECTED}")
        if LOGITS not in made or not present:
            raise PackageError(
                f"{where}: found the outputs {_shown(made)}, expected {LOGITS}, and present.N.key "
                "and .value of each layer"
            )
        _check_model(where, config, given, made, past, present)
        caches = [value for names in (past, present) for value in _values(names, given | made)]
        return cls(
            call_inputs=call_inputs,
            widths=widths,
            types={name: _type(where, value) for name, value in given.items()},
            batch=_size(given[INPUT_IDS].shape, 0),
            columns=_size(given[INPUT_IDS].shape, 1),
            caches=tuple(
                CacheNames(_pair(past, layer) if past else None, _pair(present, layer))
                for layer in range(len(config.layers))
            ),
            kv_dtype=_kv_dtype(where, caches),
        )


Found = dict[tuple[int, str], str]  # layer, and key or value → the name


def _layers(pattern: re.Pattern[str], names: Mapping[str, Any]) -> Found:
    matches = ((pattern.fullmatch(name), name) for name in names)
    return {(int(match[1]), match[2]): name for match, name in matches if match}


def _widths(names: Mapping[str, Any], config: DecoderConfig) -> dict[str, int]:
    """Return the inputs that are the width of a layer's window, with that of the checkpoint."""
    matches = ((_WIDTH.fullmatch(name), name) for name in names)
    layers = {name: int(match[1]) for match, name in matches if match}
    return {
        name: config.layers[layer].attention.window
        for name, layer in layers.items()
        if layer < len(config.layers)
    }


def _pair(names: Found, layer: int) -> tuple[str, str]:
    return names[layer, "key"], names[layer, "value"]


def _values(names: Found, values: Mapping[str, Any]) -> list[Any]:
    return [values[name] for name in names.values()]


def _check_model(
    where: str,
    config: DecoderConfig,
    given: Mapping[str, Any],
    made: Mapping[str, Any],
    past: Found,
    present: Found,
) -> None:
    """Refuse a graph of another model, as far as its inputs and outputs tell."""
    layers = len(config.layers)
    wanted = {(layer, kind) for layer in range(layers) for kind in ("key", "value")}
    for what, names in (("inputs", past), ("outputs", present)):
        if names and names.keys() != wanted:
            raise ParityError(
                f"{where}: found {len(names)} cache {what}, expected a key and a value of each of "
                f"the checkpoint's {layers} layers"
            )
    for names, values in ((past, given), (present, made)):
        for (layer, _), name in names.items():
            attention = config.layers[layer].attention
            shape = values[name].shape
            found = (_size(shape, 1), _size(shape, 3))
            expected = (attention.kv_heads, attention.head_dim)
            if len(shape) != 4 or any(
                size not in (None, right) for size, right in zip(found, expected, strict=True)
            ):
                raise ParityError(
                    f"{where}: {name!r:.80} has the shape {_shape(shape)}, expected (batch, "
                    f"{expected[0]}, tokens, {expected[1]}) as the checkpoint says"
                )
    vocab = _size(made[LOGITS].shape, -1)
    if vocab not in (None, config.vocab_size):
        raise ParityError(
            f"{where}: found logits of {vocab} tokens, the checkpoint has {config.vocab_size}"
        )


def _type(where: str, value: Any) -> str:
    if value.type not in _TYPES:
        raise PackageError(
            f"{where}: the input {value.name!r:.80} is of {value.type:.40}, expected "
            f"{', '.join(_TYPES)}"
        )
    return _TYPES[value.type]


def _kv_dtype(where: str, caches: Sequence[Any]) -> str:
    found = sorted({value.type for value in caches})
    if len(found) != 1 or found[0] not in _FLOATS:
        raise PackageError(
            f"{where}: its caches are of {', '.join(found):.80}, expected one of "
            f"{', '.join(_FLOATS)}"
        )
    return _FLOATS[found[0]]


def _size(shape: Sequence[Any], axis: int) -> int | None:
    """Return a dimension, None where it is a symbol or missing."""
    if len(shape) <= max(axis, 0) or type(shape[axis]) is not int:
        return None
    return int(shape[axis])


def _shape(shape: Sequence[Any]) -> str:
    return f"({', '.join(f'{size!s:.20}' for size in shape[:6])})"


def _shown(names: Mapping[str, Any]) -> str:
    some = ", ".join(f"{name!r:.40}" for name in list(names)[:6])
    return f"{some} and {len(names) - 6} more" if len(names) > 6 else some or "none"
