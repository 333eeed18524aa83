"""Random calls of Linear. Legend: N tokens, K input width, M output width."""

from collections.abc import Iterable

import numpy as np

from fuzz.case import (
    FLOAT,
    FLOAT_TYPES,
    MODES,
    Case,
    Tensor,
    floats,
    misshapen,
    refusal,
    shapes_of,
    size,
    sprinkle,
)

MOST_WORK = 3_000_000  # N · K · M
GIANT = 1 << 60  # a dimension of an empty tensor: its product with another does not fit


def block_sizes(rng: np.random.Generator, block: int, most_blocks: int) -> tuple[int, int, int]:
    """Draw tokens N, blocks of K and rows M of a weight whose columns come in blocks."""
    tokens, blocks, rows = size(rng, 0, 100), size(rng, 0, most_blocks), size(rng, 0, 300)
    if rng.random() < 0.03:
        tokens = size(rng, 500, 1300)
    blocks = min(blocks, MOST_WORK // max(1, block * tokens))
    rows = min(rows, MOST_WORK // max(1, tokens * blocks * block))
    return tokens, blocks, rows


def sprinkle_some(
    rng: np.random.Generator, inputs: dict[str, Tensor | None], names: Iterable[str]
) -> None:
    """Put unusual numbers into some of the named inputs, in three calls of ten."""
    if rng.random() >= 0.3:
        return
    for name in names:
        tensor = inputs[name]
        if tensor is not None and rng.random() < 0.6:
            inputs[name] = sprinkle(rng, tensor)


def draw_linear(rng: np.random.Generator) -> Case:
    """Draw a call, one in four of them misshapen."""
    tokens, depth, rows = (size(rng, 0, most) for most in (100, 900, 400))
    if rng.random() < 0.03:
        tokens = size(rng, 500, 1300)
    depth = min(depth, MOST_WORK // max(1, tokens))
    rows = min(rows, MOST_WORK // max(1, tokens * depth))
    weight = int(rng.choice(FLOAT_TYPES))
    transposed = bool(rng.random() < 0.4)
    scale = 10.0 ** rng.uniform(-3, 3)
    inputs: dict[str, Tensor | None] = {
        "x": floats(rng, (tokens, depth), scale=scale),
        "weight": floats(
            rng, (depth, rows) if transposed else (rows, depth), weight, any_address=True
        ),
        "bias": floats(rng, (rows,), scale=scale, any_address=True) if rng.random() < 0.6 else None,
    }
    sprinkle_some(rng, inputs, tuple(inputs))
    if rng.random() < 0.25:
        inputs = misshapen(rng, inputs)
    error = refusal("Linear") if is_wrong(inputs, transposed) else None
    if rng.random() < 0.02:
        giants = {"x": np.empty((GIANT, 0), np.float32), "weight": np.empty((8, 0), np.float32)}
        inputs, error = (
            {name: Tensor(array, FLOAT) for name, array in giants.items()} | {"bias": None},
            "Linear",
        )
        transposed = False
    shapes = shapes_of(inputs)
    attributes = {"transposed": int(transposed)} if transposed or rng.random() < 0.2 else {}
    if rng.random() < 0.01:
        attributes, error = {"transposed": int(rng.choice((-1, 2)))}, refusal("Linear")
    outputs = () if error else ((FLOAT, (shapes["x"][0], shapes["weight"][int(transposed)])),)
    repeat = str(rng.choice(("no", "no", "again", "at once")))
    threads, mode = int(rng.integers(1, 4)), str(rng.choice(MODES))
    return Case("Linear", inputs, attributes, mode, outputs, error, threads, repeat)


def is_wrong(inputs: dict[str, Tensor | None], transposed: bool) -> bool:
    """Say whether shapes x (N, K), weight (M, K) or (K, M), and bias (M) do not fit."""
    shapes = shapes_of(inputs)
    x, weight = shapes["x"], shapes["weight"]
    if len(x) != 2 or len(weight) != 2 or x[1] != weight[0 if transposed else 1]:
        return True
    return "bias" in shapes and shapes["bias"] != (weight[1 if transposed else 0],)
