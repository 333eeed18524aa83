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
