"""Read which layers of a model slide, and how far: the window of each layer."""

from collections.abc import Callable

from gptoss_onnx.checkpoint.fields import Fields

SLIDING = "sliding_attention"
FULL = "full_attention"
MOST_LAYERS = 1024  # more than any model has; a checkpoint of a stranger must not ask for millions


def read_windows(fields: Fields, slides: Callable[[int], bool]) -> tuple[int, ...]:
    """Return the window of each layer, in tokens; 0 where a layer sees everything.

    Args:
        fields: of `config.json`: num_hidden_layers, layer_types, sliding_window.
        slides: whether a layer slides where there are no layer_types.
    """
    count = fields.integer("num_hidden_layers", most=MOST_LAYERS)
    kinds = _read_layer_types(fields, count, slides)
    unknown = not kinds and fields.has("sliding_window")  # the kinds are wrong, so judge it as well
    expected = "an integer of at least 1 (null only where every layer is full)"
    window = fields.integer("sliding_window", expected) if SLIDING in kinds or unknown else 0
    return tuple(window if kind == SLIDING else 0 for kind in kinds)


def read_window(fields: Fields) -> int:
    """Return the window that all layers share; 0 where sliding_window is null."""
    if "sliding_window" in fields.document and not fields.has("sliding_window"):
        return 0
    return fields.integer("sliding_window", "an integer of at least 1, or null for no window")


def read_late_windows(fields: Fields) -> tuple[int, ...]:
    """Return the window of each layer as Qwen states it.

    If use_sliding_window is true, the layers from max_window_layers on slide, or those that
    layer_types names. Otherwise none does, whatever sliding_window says.
    """
    if fields.boolean("use_sliding_window", absent=False):
        first = 0 if fields.value("max_window_layers") == 0 else fields.integer("max_window_layers")
        given = fields.has("sliding_window")
        return read_windows(fields, slides=lambda layer: given and layer >= first)
    if SLIDING in (fields.value("layer_types") or ()):
        fields.wrong("layer_types", f"{FULL!r} alone, since use_sliding_window is false")
    return (0,) * fields.integer("num_hidden_layers", most=MOST_LAYERS)


def _read_layer_types(fields: Fields, count: int, slides: Callable[[int], bool]) -> tuple[str, ...]:
    """One attention type per layer."""
    if not fields.has("layer_types"):
        return tuple(SLIDING if slides(layer) else FULL for layer in range(count))
    value = fields.value("layer_types")
    if not isinstance(value, list):
        fields.wrong("layer_types", "a list with one entry per layer")
        return ()
    for layer, kind in enumerate(value):
        if kind not in (SLIDING, FULL):
            fields.problems.add(
                f"layer_types[{layer}]: found {kind!r}, expected {SLIDING!r} or {FULL!r}"
            )
    if count and len(value) != count:
        fields.problems.add(
            f"layer_types: found {len(value)} entries, expected num_hidden_layers = {count}"
        )
    return tuple(value[:MOST_LAYERS])
