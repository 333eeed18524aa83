"""Random calls of SinkAttention.

Legend: B batch, S new tokens, C cache capacity, H query heads, K kv heads, D head dim.
"""

import numpy as np

from fuzz.case import (
    FLOAT,
    FLOAT_TYPES,
    INT64,
    MODES,
    Case,
    Shape,
    Tensor,
    floats,
    misshapen,
    placed,
    refusal,
    shapes_of,
    size,
    sprinkle,
)

Inputs = dict[str, Tensor | None]
MOST_WORK = 4_000_000  # B · H · S · C · D
MOST_POSITION = 1 << 62
GIANT = 1 << 40
WRONG_ATTRIBUTES = (
    ("num_heads", 0),
    ("num_heads", -3),
    ("num_heads", 2**40),
    ("kv_num_heads", 0),
    ("kv_num_heads", -(2**63)),
    ("window", -1),
    ("window", 2**63 - 1),
    ("scale", float("inf")),
    ("scale", float("nan")),
    ("interleaved", 2),
    ("interleaved", -1),
    ("sink_tokens", -1),
    ("sink_tokens", 2**40),
    ("sink_bias", float("inf")),
    ("sink_bias", float("nan")),
)
TOKEN_INPUTS = ("query", "key", "value", "cos", "sin", "sink_cos", "sink_sin")
OF_THE_LAYER = ("sinks", "alibi_slopes", "distance_bias")
MAY_BE_WILD = (*TOKEN_INPUTS, *OF_THE_LAYER, "past_key", "past_value")
WRONG_LENGTHS = (-1, -(2**63), 2**63 - 1, MOST_POSITION + 1)


def draw_attention(rng: np.random.Generator) -> Case:
    """Draw a call, one in four of them wrong, and half of them of a layer like gpt-oss's."""
    batch, kv_heads, group = (size(rng, low, high) for low, high in ((0, 3), (1, 4), (1, 9)))
    head_dim = 2 * size(rng, 1, 66)
    columns = size(rng, 0, 80)
    window = size(rng, 1, 140) if rng.random() < 0.5 else 0
    like_gpt_oss = rng.random() < 0.5
    kept = 0 if like_gpt_oss or window == 0 else int(rng.integers(0, window))
    pairs = head_dim // 2 if like_gpt_oss else int(rng.integers(0, head_dim // 2 + 1))
    work = max(1, batch * kv_heads * group * columns * head_dim)
    past = draw_past(rng, batch, window, min(2000, MOST_WORK // work))
    capacity = least_capacity(past, columns, window) + (
        int(rng.integers(0, 20)) if rng.random() < 0.6 else 0
    )
    cache = int(rng.choice(FLOAT_TYPES))
    attributes: dict[str, int | float] = {
        "num_heads": kv_heads * group,
        "kv_num_heads": kv_heads,
        "scale": float(head_dim) ** -0.5,
        "window": window,
        "interleaved": 0 if like_gpt_oss else int(rng.integers(0, 2)),
        "sink_tokens": kept,
        "sink_bias": float(rng.normal()) if kept else 0.0,
    }
    inputs: Inputs = {
        "query": floats(
            rng, (batch, columns, kv_heads * group * head_dim), scale=10 ** rng.uniform(-1, 0.7)
        ),
        "key": floats(rng, (batch, columns, kv_heads * head_dim)),
        "value": floats(rng, (batch, columns, kv_heads * head_dim)),
        "past_key": floats(rng, (batch, kv_heads, capacity, head_dim), cache),
        "past_value": floats(rng, (batch, kv_heads, capacity, head_dim), cache),
        "past_lengths": placed(rng, past, INT64),
        "new_lengths": placed(rng, rng.integers(0, columns + 1, batch), INT64),
    }
    inputs |= optional_inputs(
        rng, (batch, columns, pairs), kv_heads * group, kept > 0, like_gpt_oss
    )
    if rng.random() < 0.3:
        for name in MAY_BE_WILD:
            tensor = inputs[name]
            if tensor is not None and rng.random() < 0.3:
                inputs[name] = sprinkle(rng, tensor)
    inputs = made_wrong(rng, inputs, attributes)
    wrong = is_wrong(inputs, attributes)
    shapes = shapes_of(inputs)
    present = (cache, shapes["past_key"])
    outputs = () if wrong else ((FLOAT, shapes["query"]), present, present)
    repeat = str(rng.choice(("no", "no", "again", "at once")))
    in_place = (
        {1: "past_key", 2: "past_value"}
        if not wrong and repeat == "no" and rng.random() < 0.7
        else {}
    )
    threads, mode = int(rng.integers(1, 4)), str(rng.choice(MODES))
    error = refusal("SinkAttention") if wrong else None
    return Case(
        "SinkAttention", inputs, attributes, mode, outputs, error, threads, repeat, in_place
    )


def optional_inputs(
    rng: np.random.Generator,
    angles: tuple[int, int, int],
    heads: int,
    keeps: bool,
    like_gpt_oss: bool,
) -> Inputs:
    """Draw the inputs that a layer may lack; `angles` is the shape of cos, without pairs none."""

    def has(share: float) -> bool:
        return not like_gpt_oss and rng.random() < share

    def turned(wanted: bool) -> tuple[Tensor | None, Tensor | None]:
        if not wanted:
            return None, None
        drawn = rng.uniform(0, 7, angles)
        parts = (np.cos(drawn), np.sin(drawn))
        cos, sin = (placed(rng, part.astype(np.float32), FLOAT) for part in parts)
        return cos, sin

    sinks = floats(rng, (heads,), scale=10 ** rng.uniform(-1, 1))
    cos, sin = turned(angles[2] > 0)
    sink_cos, sink_sin = turned(angles[2] > 0 and keeps)
    return {
        "sinks": None if has(0.5) else sinks,
        "cos": cos,
        "sin": sin,
        "alibi_slopes": floats(rng, (heads,), scale=0.3) if has(0.4) else None,
        "distance_bias": floats(rng, (heads, size(rng, 1, 200))) if has(0.4) else None,
        "sink_cos": sink_cos,
        "sink_sin": sink_sin,
    }


def draw_past(rng: np.random.Generator, batch: int, window: int, most: int) -> np.ndarray:
    """Draw each row's cached tokens; a ring may have seen any number of them."""
    past = np.array([size(rng, 0, max(1, most)) for _ in range(batch)], np.int64)
    if window and rng.random() < 0.1:
        past += int(rng.choice((2**31 - 3, 2**32, 2**53 + 1, MOST_POSITION - 5000)))
    return past


def least_capacity(past: np.ndarray, columns: int, window: int) -> int:
    """Return the smallest capacity that holds every row."""
    needed = int(past.max(initial=0)) + columns
    return max(0, min(needed, window + columns - 1) if window else needed)


def made_wrong(
    rng: np.random.Generator, inputs: Inputs, attributes: dict[str, int | float]
) -> Inputs:
    """Return the inputs, at times with one of them wrong; at times set an attribute wrong."""
    kind = rng.random()
    if kind < 0.12:
        return misshapen(rng, inputs)
    if kind < 0.15:
        name, value = WRONG_ATTRIBUTES[int(rng.integers(0, len(WRONG_ATTRIBUTES)))]
        attributes[name] = value
    elif (
        kind < 0.22
        and len(shapes_of(inputs)["past_lengths"])
        and shapes_of(inputs)["past_lengths"][0]
    ):
        name = str(rng.choice(("past_lengths", "new_lengths")))
        tensor, past_key = inputs[name], inputs["past_key"]
        assert tensor is not None and past_key is not None
        array = tensor.array.copy()
        near = int(past_key.array.shape[2]) + int(rng.integers(-1, 2))
        array[rng.integers(0, len(array))] = (
            near if rng.random() < 0.5 else int(rng.choice(WRONG_LENGTHS))
        )
        return {**inputs, name: Tensor(array, INT64, tensor.offset, tensor.tail)}
    elif kind < 0.23:
        return without_rows(inputs)
    elif kind < 0.26:
        return {**inputs, str(rng.choice(("cos", "sin", "sink_cos", "sink_sin"))): None}
    return inputs


def without_rows(inputs: Inputs) -> Inputs:
    """Return inputs of no row that claim very many tokens."""
    empty: Inputs = {}
    for name, tensor in inputs.items():
        if tensor is None or name in OF_THE_LAYER:
            empty[name] = tensor
            continue
        shape = (0, *tensor.array.shape[1:])
        if name in TOKEN_INPUTS:
            shape = (0, GIANT, shape[2])
        empty[name] = Tensor(np.zeros(shape, tensor.array.dtype), tensor.type)
    return empty


def is_wrong(inputs: Inputs, attributes: dict[str, int | float]) -> bool:
    """Say whether an attribute has no meaning, a shape does not fit, or a length reaches beyond the
    cache.
    """
    heads, kv_heads, window = (
        int(attributes[name]) for name in ("num_heads", "kv_num_heads", "window")
    )
    if (
        not (0 < heads <= 2**31 and 0 < kv_heads <= 2**31 and 0 <= window <= 2**31)
        or heads % kv_heads
    ):
        return True
    kept, bias = int(attributes["sink_tokens"]), float(attributes["sink_bias"])
    if attributes["interleaved"] not in (0, 1) or not (kept == 0 or 0 < kept < window):
        return True
    if not (np.isfinite(attributes["scale"]) and np.isfinite(bias) and (bias == 0 or kept > 0)):
        return True
    shapes = shapes_of(inputs)
    if len(shapes["query"]) != 3 or len(shapes["past_key"]) != 4:
        return True
    if not has_partners(shapes, kept > 0):
        return True
    (batch, columns, _), (_, _, capacity, head_dim) = shapes["query"], shapes["past_key"]
    if head_dim == 0 or head_dim % 2 or shapes != expected_shapes(shapes, heads, kv_heads):
        return True
    past, new = (
        tensor.array
        for name in ("past_lengths", "new_lengths")
        if (tensor := inputs[name]) is not None
    )
    if (past < 0).any() or (past > MOST_POSITION).any() or (new < 0).any() or (new > columns).any():
        return True
    return any(
        least_capacity(past[row : row + 1], columns, window) > capacity for row in range(batch)
    )


def has_partners(shapes: dict[str, Shape], keeps: bool) -> bool:
    """Say whether optional inputs come with those that give them a meaning, and have their rank."""
    if ("sin" in shapes) != ("cos" in shapes):
        return False
    wanted = "cos" in shapes and keeps
    if any((name in shapes) != wanted for name in ("sink_cos", "sink_sin")):
        return False
    ranks = {"cos": 3, "distance_bias": 2}
    return all(len(shapes[name]) == rank for name, rank in ranks.items() if name in shapes)


def expected_shapes(shapes: dict[str, Shape], heads: int, kv_heads: int) -> dict[str, Shape]:
    """Return the shape of every input that is there, given that the ranks are right."""
    (batch, columns, _), (_, _, capacity, head_dim) = shapes["query"], shapes["past_key"]
    cache, tokens = (batch, kv_heads, capacity, head_dim), (batch, columns, kv_heads * head_dim)
    pairs = min(max(1, shapes["cos"][2]), head_dim // 2) if "cos" in shapes else 0
    distances = max(1, shapes["distance_bias"][1]) if "distance_bias" in shapes else 0
    angles = (batch, columns, pairs)
    expected = {
        "query": (batch, columns, heads * head_dim),
        "key": tokens,
        "value": tokens,
        "past_key": cache,
        "past_value": cache,
        "past_lengths": (batch,),
        "new_lengths": (batch,),
        "sinks": (heads,),
        "cos": angles,
        "sin": angles,
        "alibi_slopes": (heads,),
        "distance_bias": (heads, distances),
        "sink_cos": angles,
        "sink_sin": angles,
    }
    return {name: shape for name, shape in expected.items() if name in shapes}
