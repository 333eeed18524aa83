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
)
WRONG_LENGTHS = (-1, -(2**63), 2**63 - 1, MOST_POSITION + 1)


def draw_attention(rng: np.random.Generator) -> Case:
    """Draw a call, one in four of them wrong."""
    batch, kv_heads, group = (size(rng, low, high) for low, high in ((0, 3), (1, 4), (1, 9)))
    head_dim = 2 * size(rng, 1, 66)
    columns = size(rng, 0, 80)
    window = size(rng, 1, 140) if rng.random() < 0.5 else 0
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
    }
    angles = rng.uniform(0, 7, (batch, columns, head_dim // 2))
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
        "sinks": floats(rng, (kv_heads * group,), scale=10 ** rng.uniform(-1, 1)),
        "cos": placed(rng, np.cos(angles).astype(np.float32), FLOAT),
        "sin": placed(rng, np.sin(angles).astype(np.float32), FLOAT),
    }
    if rng.random() < 0.3:
        for name in ("query", "key", "value", "past_key", "past_value", "sinks", "cos", "sin"):
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
    return inputs


def without_rows(inputs: Inputs) -> Inputs:
    """Return inputs of no row that claim very many tokens."""
    empty: Inputs = {}
    for name, tensor in inputs.items():
        assert tensor is not None
        shape = (0, *tensor.array.shape[1:])
        if name in ("query", "key", "value", "cos", "sin"):
            shape = (0, GIANT, shape[2])
        empty[name] = (
            tensor if name == "sinks" else Tensor(np.zeros(shape, tensor.array.dtype), tensor.type)
        )
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
    if not np.isfinite(attributes["scale"]):
        return True
    shapes = shapes_of(inputs)
    if len(shapes["query"]) != 3 or len(shapes["past_key"]) != 4:
        return True
    (batch, columns, _), (_, _, capacity, head_dim) = shapes["query"], shapes["past_key"]
    if (
        head_dim == 0
        or head_dim % 2
        or shapes != expected_shapes(batch, columns, capacity, head_dim, heads, kv_heads)
    ):
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


def expected_shapes(
    batch: int, columns: int, capacity: int, head_dim: int, heads: int, kv_heads: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input."""
    cache, tokens = (batch, kv_heads, capacity, head_dim), (batch, columns, kv_heads * head_dim)
    return {
        "query": (batch, columns, heads * head_dim),
        "key": tokens,
        "value": tokens,
        "past_key": cache,
        "past_value": cache,
        "past_lengths": (batch,),
        "new_lengths": (batch,),
        "sinks": (heads,),
        "cos": (batch, columns, head_dim // 2),
        "sin": (batch, columns, head_dim // 2),
    }
