"""Random calls of MoEDispatch and MoEDispatchMXFP4. Legend: N tokens, Hd hidden size, E experts, I
expert width.
"""

from collections.abc import Callable

import numpy as np

from fuzz.case import (
    FLOAT,
    FLOAT_TYPES,
    MODES,
    UINT8,
    Case,
    Tensor,
    encode,
    floats,
    misshapen,
    placed,
    refusal,
    shapes_of,
    size,
    sprinkle,
)

Inputs = dict[str, Tensor | None]
MOST_WEIGHTS = 400_000
SCALE_NAN = 255
WRONG_ATTRIBUTES = (
    ("top_k", 0),
    ("top_k", -1),
    ("top_k", 2**62),
    ("alpha", float("inf")),
    ("alpha", float("nan")),
    ("limit", -1.0),
    ("limit", float("nan")),
)


def draw_moe(rng: np.random.Generator) -> Case:
    """Draw a call of either op, one in four of them wrong."""
    mxfp4 = bool(rng.random() < 0.65)
    step = 32 if mxfp4 else 1
    experts = size(rng, 1, 12)
    hidden = step * size(rng, 1, 384 // step)
    width = step * size(rng, 1, max(1, min(384, MOST_WEIGHTS // (3 * experts * hidden)) // step))
    tokens = size(rng, 0, 80)
    attributes: dict[str, int | float] = {
        "top_k": int(rng.integers(1, experts + 1)),
        "alpha": float(rng.choice((1.702, 0.0, -1.0))),
        "limit": float(rng.choice((7.0, 0.0, 1e30))),
    }
    experts_of = mxfp4_experts if mxfp4 else dense_experts
    inputs: Inputs = {
        "hidden": floats(rng, (tokens, hidden), scale=10 ** rng.uniform(-2, 0.5)),
        "router_logits": logits(rng, tokens, experts),
        **experts_of(rng, experts, hidden, width),
    }
    wild: set[tuple[str, int]] = set()
    if rng.random() < 0.3:
        inputs = with_wild_tokens(rng, inputs, wild)
    if rng.random() < 0.3:
        inputs = with_wild_weights(rng, inputs, wild, mxfp4)
    if rng.random() < 0.2:
        inputs = misshapen(rng, inputs)
    op = "MoEDispatchMXFP4" if mxfp4 else "MoEDispatch"
    wrong_attribute = rng.random() < 0.04
    if wrong_attribute:
        name, value = WRONG_ATTRIBUTES[int(rng.integers(0, len(WRONG_ATTRIBUTES)))]
        attributes[name] = value
    shapes_wrong = wrong_mxfp4 if mxfp4 else wrong_dense
    wrong = wrong_attribute or is_wrong(inputs, int(attributes["top_k"]), shapes_wrong)
    outputs = () if wrong else ((FLOAT, shapes_of(inputs)["hidden"]),)
    repeat = str(rng.choice(("no", "no", "again", "at once")))
    threads, mode = int(rng.integers(1, 4)), str(rng.choice(MODES))
    error = refusal(op) if wrong else None
    return Case(op, inputs, attributes, mode, outputs, error, threads, repeat, wild=frozenset(wild))


def logits(rng: np.random.Generator, tokens: int, experts: int) -> Tensor:
    """Draw router logits, in some calls with many ties or with NaN, in some with infinities."""
    numbers = rng.standard_normal((tokens, experts)) * 10 ** rng.uniform(-1, 2)
    if rng.random() < 0.3:
        numbers = numbers.round()
    tensor = placed(rng, encode(numbers, FLOAT), FLOAT)
    if rng.random() < 0.05:
        return sprinkle(rng, tensor, (np.inf, -np.inf))
    return sprinkle(rng, tensor, (np.nan,)) if rng.random() < 0.05 else tensor


def mxfp4_experts(rng: np.random.Generator, experts: int, hidden: int, width: int) -> Inputs:
    """Draw blocks, scales and biases; the scales let some products reach the clamps."""

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return placed(rng, rng.integers(low, high, shape, dtype=np.uint8), UINT8)

    return {
        "gate_up_blocks": integers(0, 256, experts, 2 * width, hidden // 32, 16),
        "gate_up_scales": integers(118, 128, experts, 2 * width, hidden // 32),
        "gate_up_bias": floats(rng, (experts, 2 * width), any_address=True),
        "down_blocks": integers(0, 256, experts, hidden, width // 32, 16),
        "down_scales": integers(116, 124, experts, hidden, width // 32),
        "down_bias": floats(rng, (experts, hidden), any_address=True),
    }


def dense_experts(rng: np.random.Generator, experts: int, hidden: int, width: int) -> Inputs:
    """Draw dense weights of one type and biases."""
    element = int(rng.choice(FLOAT_TYPES))
    return {
        "gate_up": floats(rng, (experts, hidden, 2 * width), element, scale=0.3, any_address=True),
        "gate_up_bias": floats(rng, (experts, 2 * width), any_address=True),
        "down": floats(rng, (experts, width, hidden), element, scale=0.3, any_address=True),
        "down_bias": floats(rng, (experts, hidden), any_address=True),
    }


def with_wild_tokens(
    rng: np.random.Generator, inputs: Inputs, wild: set[tuple[str, int]]
) -> Inputs:
    """Put infinities, NaN, huge and denormal numbers into the hidden states of a few tokens."""
    hidden = inputs["hidden"]
    assert hidden is not None
    array = hidden.array.copy()
    for token in rng.integers(0, len(array), 2) if len(array) else ():
        row = encode(array[token].astype(np.float64) * rng.choice((1, 1e20, 1e-40)), FLOAT)
        array[token] = sprinkle(rng, Tensor(row, FLOAT)).array
        wild.add(("token", int(token)))
    return {**inputs, "hidden": Tensor(array, FLOAT, hidden.offset, hidden.tail)}


def with_wild_weights(
    rng: np.random.Generator, inputs: Inputs, wild: set[tuple[str, int]], mxfp4: bool
) -> Inputs:
    """Put extreme scales, or numbers, into one expert."""
    names = ("gate_up_scales", "down_scales") if mxfp4 else ("gate_up", "down")
    name = str(rng.choice((*names, "gate_up_bias", "down_bias")))
    tensor = inputs[name]
    assert tensor is not None
    expert = int(rng.integers(0, len(tensor.array)))
    array = tensor.array.copy()
    part = Tensor(array[expert], tensor.type)
    array[expert] = sprinkle(
        rng, part, (0, 1, 240, 252, SCALE_NAN) if part.type == UINT8 else SPECIAL_WEIGHTS
    ).array
    wild.add(("expert", expert))
    return {**inputs, name: Tensor(array, tensor.type, tensor.offset, tensor.tail)}


SPECIAL_WEIGHTS = (np.inf, -np.inf, np.nan, 6e4, -6e4, 1e-7, 1e-39, -0.0)


def is_wrong(inputs: Inputs, top_k: int, wrong_experts: Callable[..., bool]) -> bool:
    """Say whether a shape does not fit the others, or a router logit is NaN."""
    shapes, router = shapes_of(inputs), inputs["router_logits"]
    hidden, logits_shape = shapes["hidden"], shapes["router_logits"]
    if (
        len(hidden) != 2
        or len(logits_shape) != 2
        or hidden[0] != logits_shape[0]
        or logits_shape[1] < top_k
    ):
        return True
    if hidden[1] == 0 or wrong_experts(shapes, logits_shape[1], hidden[1]):
        return True
    assert router is not None
    return bool(np.isnan(router.array).any())


def wrong_dense(shapes: dict[str, tuple[int, ...]], experts: int, hidden: int) -> bool:
    width = shapes["gate_up"][-1] // 2 if shapes["gate_up"] else 0
    return width == 0 or {
        name: shapes[name] for name in shapes if name not in ("hidden", "router_logits")
    } != {
        "gate_up": (experts, hidden, 2 * width),
        "gate_up_bias": (experts, 2 * width),
        "down": (experts, width, hidden),
        "down_bias": (experts, hidden),
    }


def wrong_mxfp4(shapes: dict[str, tuple[int, ...]], experts: int, hidden: int) -> bool:
    scales = shapes["gate_up_scales"]
    width = scales[1] // 2 if len(scales) > 1 else 0
    if width == 0 or width % 32 or hidden % 32:
        return True
    return {name: shapes[name] for name in shapes if name not in ("hidden", "router_logits")} != {
        "gate_up_blocks": (experts, 2 * width, hidden // 32, 16),
        "gate_up_scales": (experts, 2 * width, hidden // 32),
        "gate_up_bias": (experts, 2 * width),
        "down_blocks": (experts, hidden, width // 32, 16),
        "down_scales": (experts, hidden, width // 32),
        "down_bias": (experts, hidden),
    }
