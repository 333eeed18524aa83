"""Random calls of LinearInt8. Legend: N tokens, K input width, M output width."""

import numpy as np

from fuzz.case import (
    FLOAT,
    INT8,
    MODES,
    Case,
    Tensor,
    floats,
    misshapen,
    placed,
    refusal,
    shapes_of,
)
from fuzz.draw_linear import GIANT, block_sizes, sprinkle_some

BLOCK = 32
MOST_BLOCKS = 40


def draw_linear_int8(rng: np.random.Generator) -> Case:
    """Draw a call, one in four of them misshapen."""
    tokens, blocks, rows = block_sizes(rng, BLOCK, MOST_BLOCKS)
    scale = 10.0 ** rng.uniform(-3, 3)
    inputs: dict[str, Tensor | None] = {
        "x": floats(rng, (tokens, BLOCK * blocks), scale=scale),
        "weight": placed(
            rng, rng.integers(-128, 128, (rows, BLOCK * blocks), np.int8), INT8, any_address=True
        ),
        "scales": floats(rng, (rows, blocks), scale=0.01, any_address=True),
        "bias": floats(rng, (rows,), scale=scale, any_address=True) if rng.random() < 0.6 else None,
    }
    sprinkle_some(rng, inputs, ("x", "scales", "bias"))
    if rng.random() < 0.25:
        inputs = misshapen(rng, inputs)
    error = refusal("LinearInt8") if is_wrong(inputs) else None
    if rng.random() < 0.02:
        giants = {
            "x": Tensor(np.empty((GIANT, 0), np.float32), FLOAT),
            "weight": Tensor(np.empty((8, 0), np.int8), INT8),
            "scales": Tensor(np.empty((8, 0), np.float32), FLOAT),
        }
        inputs, error = {**giants, "bias": None}, "LinearInt8"
    shapes = shapes_of(inputs)
    outputs = () if error else ((FLOAT, (shapes["x"][0], shapes["weight"][0])),)
    repeat = str(rng.choice(("no", "no", "again", "at once")))
    threads, mode = int(rng.integers(1, 4)), str(rng.choice(MODES))
    return Case("LinearInt8", inputs, {}, mode, outputs, error, threads, repeat)


def is_wrong(inputs: dict[str, Tensor | None]) -> bool:
    """Say whether shapes x (N, K), weight (M, K), scales (M, K/32) and bias (M) do not fit."""
    shapes = shapes_of(inputs)
    x, weight = shapes["x"], shapes["weight"]
    if len(x) != 2 or len(weight) != 2 or x[1] != weight[1] or x[1] % BLOCK:
        return True
    if shapes["scales"] != (weight[0], x[1] // BLOCK):
        return True
    return "bias" in shapes and shapes["bias"] != weight[:1]
