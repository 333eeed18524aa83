"""Random calls of LinearPacked. Legend: N tokens, K input width, M output width, X exceptions."""

import numpy as np
import torch

from fuzz.case import (
    BFLOAT16,
    FLOAT,
    INT32,
    MODES,
    UINT8,
    Case,
    Tensor,
    floats,
    misshapen,
    placed,
    refusal,
    shapes_of,
    sprinkle,
)
from fuzz.draw_linear import GIANT, block_sizes, sprinkle_some
from fuzz.tensors import torch_of
from gptoss_onnx.custom_ops.linear_packed import LARGEST_BASE, pack

BLOCK = 64
MOST_BLOCKS = 20
PARTS = {"low": UINT8, "high": UINT8, "bases": UINT8, "positions": INT32, "values": BFLOAT16}


def draw_linear_packed(rng: np.random.Generator) -> Case:
    """Draw a call, one in four of them misshapen, some with positions or bases that do not hold."""
    tokens, blocks, rows = block_sizes(rng, BLOCK, MOST_BLOCKS)
    scale = 10.0 ** rng.uniform(-3, 3)
    inputs: dict[str, Tensor | None] = {
        "x": floats(rng, (tokens, BLOCK * blocks), scale=scale),
        **_packed(rng, floats(rng, (rows, BLOCK * blocks), BFLOAT16, scale=scale)),
        "bias": floats(rng, (rows,), scale=scale, any_address=True) if rng.random() < 0.6 else None,
    }
    sprinkle_some(rng, inputs, ("x", "bias"))
    if rng.random() < 0.1:
        _spoil(rng, inputs)
    if rng.random() < 0.25:
        inputs = misshapen(rng, inputs)
    error = refusal("LinearPacked") if is_wrong(inputs) else None
    if rng.random() < 0.02:
        inputs, error = _giants(), "LinearPacked"
    shapes = shapes_of(inputs)
    outputs = () if error else ((FLOAT, (shapes["x"][0], shapes["low"][0])),)
    repeat = str(rng.choice(("no", "no", "again", "at once")))
    threads, mode = int(rng.integers(1, 4)), str(rng.choice(MODES))
    return Case("LinearPacked", inputs, {}, mode, outputs, error, threads, repeat)


def is_wrong(inputs: dict[str, Tensor | None]) -> bool:
    """Say whether x (N, K), the packed weight (M, K) and bias (M) do not fit, or a base or a
    position is out of range.
    """
    shapes = shapes_of(inputs)
    x, low = shapes["x"], shapes["low"]
    if len(x) != 2 or len(low) != 2 or x[1] != low[1] or x[1] % BLOCK:
        return True
    if shapes["high"] != (low[0], low[1] // 2) or shapes["bases"] != low[:1]:
        return True
    positions = shapes["positions"]
    if len(positions) != 2 or positions[1] != 2 or shapes["values"] != positions[:1]:
        return True
    if "bias" in shapes and shapes["bias"] != low[:1]:
        return True
    return _is_out_of_range(inputs)


def _is_out_of_range(inputs: dict[str, Tensor | None]) -> bool:
    bases, positions, low = (inputs[name] for name in ("bases", "positions", "low"))
    assert bases is not None
    assert positions is not None
    assert low is not None
    row, column = positions.array.astype(np.int64).T
    rows, depth = low.array.shape
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < depth)
    ascending = np.diff(row * depth + column) > 0
    return not inside.all() or not ascending.all() or bool((bases.array > LARGEST_BASE).any())


def _packed(rng: np.random.Generator, weight: Tensor) -> dict[str, Tensor | None]:
    """Return a weight's operands; some weights are far from the others, infinite or no number."""
    if rng.random() < 0.3:
        weight = sprinkle(rng, weight)
    packed = pack(torch_of(weight.array, BFLOAT16))
    found: dict[str, Tensor | None] = {}
    for name, element in PARTS.items():
        part = getattr(packed, name)
        array = (part.view(torch.int16) if element == BFLOAT16 else part).numpy()
        array = array.view(np.uint16) if element == BFLOAT16 else array
        found[name] = placed(rng, array, element, any_address=True)
    return found


def _spoil(rng: np.random.Generator, inputs: dict[str, Tensor | None]) -> None:
    """Put a base or a position out of range, where there is one."""
    name = str(rng.choice(("bases", "positions")))
    tensor = inputs[name]
    assert tensor is not None
    if not tensor.array.size:
        return
    array = tensor.array.copy()
    wild = (LARGEST_BASE + 1, 255) if name == "bases" else (-1, -(2**31), 2**31 - 1)
    array.reshape(-1)[int(rng.integers(array.size))] = int(rng.choice(wild))
    inputs[name] = Tensor(array, tensor.type)


def _giants() -> dict[str, Tensor | None]:
    return {
        "x": Tensor(np.empty((GIANT, 0), np.float32), FLOAT),
        "low": Tensor(np.empty((8, 0), np.uint8), UINT8),
        "high": Tensor(np.empty((8, 0), np.uint8), UINT8),
        "bases": Tensor(np.zeros(8, np.uint8), UINT8),
        "positions": Tensor(np.empty((0, 2), np.int32), INT32),
        "values": Tensor(np.empty(0, np.uint16), BFLOAT16),
        "bias": None,
    }
