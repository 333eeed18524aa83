"""Random calls of MoEDispatch and MoEDispatchMXFP4. Legend: N tokens, Hd hidden size, E experts, I
expert width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fuzz.case import (
    FLOAT,
    FLOAT_TYPES,
    MODES,
    UINT8,
    Case,
    Shape,
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
    ("beta", float("inf")),
    ("activation", "swish"),
    ("activation", ""),
    ("activation", 1),
    ("normalize", 2),
)
WRONG_DENSE_ATTRIBUTES = (*WRONG_ATTRIBUTES, ("interleaved", -1), ("transposed", 2))
UNGATED = ("gelu", "gelu_tanh", "relu", "silu")


@dataclass(frozen=True)
class Layout:
    """What shapes the weights of a call have."""

    mxfp4: bool
    rows_each: int = 2  # of gate_up, for one row of the width
    transposed: bool = False

    def stored(self, experts: int, outputs: int, inputs: int) -> Shape:
        """Return the shape of a dense weight."""
        return (experts, outputs, inputs) if self.transposed else (experts, inputs, outputs)


def draw_moe(rng: np.random.Generator) -> Case:
    """Draw a call of either op, one in four of them wrong."""
    mxfp4 = bool(rng.random() < 0.5)
    step = 32 if mxfp4 else 1
    experts = size(rng, 1, 12)
    hidden = step * size(rng, 1, 384 // step)
    width = step * size(rng, 1, max(1, min(384, MOST_WEIGHTS // (3 * experts * hidden)) // step))
    tokens = size(rng, 0, 80)
    if not mxfp4 and rng.random() < 0.2:  # groups beyond what Linear's kernels take token by token
        tokens = size(rng, 60, 200)
    attributes = draw_attributes(rng, experts, mxfp4)
    layout = layout_of(attributes, mxfp4)
    inputs: Inputs = {
        "hidden": floats(rng, (tokens, hidden), scale=10 ** rng.uniform(-2, 0.5)),
        "router_logits": logits(rng, tokens, experts),
        **(mxfp4_experts if mxfp4 else dense_experts)(rng, layout, experts, hidden, width),
    }
    for name in ("gate_up_bias", "down_bias"):
        if rng.random() < 0.25:
            inputs[name] = None
    wild: set[tuple[str, int]] = set()
    if rng.random() < 0.3:
        inputs = with_wild_tokens(rng, inputs, wild)
    if rng.random() < 0.3:
        inputs = with_wild_weights(rng, inputs, wild, mxfp4)
    if rng.random() < 0.2:
        inputs = misshapen(rng, inputs)
    op = "MoEDispatchMXFP4" if mxfp4 else "MoEDispatch"
    wrong_attribute = rng.random() < 0.06
    if wrong_attribute:
        wrongs = WRONG_ATTRIBUTES if mxfp4 else WRONG_DENSE_ATTRIBUTES
        name, value = wrongs[int(rng.integers(0, len(wrongs)))]
        attributes[name] = value
    wrong = wrong_attribute or is_wrong(inputs, int(attributes["top_k"]), layout)
    outputs = () if wrong else ((FLOAT, shapes_of(inputs)["hidden"]),)
    repeat = str(rng.choice(("no", "no", "again", "at once")))
    threads, mode = int(rng.integers(1, 4)), str(rng.choice(MODES))
    error = refusal(op) if wrong else None
    return Case(op, inputs, attributes, mode, outputs, error, threads, repeat, wild=frozenset(wild))


def draw_attributes(
    rng: np.random.Generator, experts: int, mxfp4: bool
) -> dict[str, int | float | str]:
    """Draw the attributes that a node states: of the later ones some."""
    attributes: dict[str, int | float | str] = {
        "top_k": int(rng.integers(1, experts + 1)),
        "alpha": float(rng.choice((1.702, 1.0, 0.0, -1.0))),
        "limit": float(rng.choice((7.0, 0.0, 1e30, np.inf))),
    }
    later: dict[str, int | float | str] = {
        "beta": float(rng.choice((0.0, 1.0, -0.5))),
        "activation": str(rng.choice(UNGATED if rng.random() < 0.5 else ("swiglu",))),
        "normalize": int(rng.integers(0, 2)),
    }
    if not mxfp4:
        later |= {name: int(rng.integers(0, 2)) for name in ("interleaved", "transposed")}
    return attributes | {name: value for name, value in later.items() if rng.random() < 0.6}


def layout_of(attributes: Mapping[str, int | float | str], mxfp4: bool) -> Layout:
    """Return the layout that valid attributes ask for."""
    gated = attributes.get("activation", "swiglu") == "swiglu"
    return Layout(mxfp4, 2 if gated else 1, attributes.get("transposed", 0) == 1)


def logits(rng: np.random.Generator, tokens: int, experts: int) -> Tensor:
    """Draw router logits, in some calls with many ties or with NaN, in some with infinities."""
    numbers = rng.standard_normal((tokens, experts)) * 10 ** rng.uniform(-1, 2)
    if rng.random() < 0.3:
        numbers = numbers.round()
    tensor = placed(rng, encode(numbers, FLOAT), FLOAT)
    if rng.random() < 0.05:
        return sprinkle(rng, tensor, (np.inf, -np.inf))
    return sprinkle(rng, tensor, (np.nan,)) if rng.random() < 0.05 else tensor


def mxfp4_experts(
    rng: np.random.Generator, layout: Layout, experts: int, hidden: int, width: int
) -> Inputs:
    """Draw blocks, scales and biases; the scales let some products reach the clamps."""
    rows = layout.rows_each * width

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return placed(rng, rng.integers(low, high, shape, dtype=np.uint8), UINT8)

    return {
        "gate_up_blocks": integers(0, 256, experts, rows, hidden // 32, 16),
        "gate_up_scales": integers(118, 128, experts, rows, hidden // 32),
        "gate_up_bias": floats(rng, (experts, rows), any_address=True),
        "down_blocks": integers(0, 256, experts, hidden, width // 32, 16),
        "down_scales": integers(116, 124, experts, hidden, width // 32),
        "down_bias": floats(rng, (experts, hidden), any_address=True),
    }


def dense_experts(
    rng: np.random.Generator, layout: Layout, experts: int, hidden: int, width: int
) -> Inputs:
    """Draw dense weights of one type and biases."""
    element, rows = int(rng.choice(FLOAT_TYPES)), layout.rows_each * width

    def weight(outputs: int, inputs: int) -> Tensor:
        shape = layout.stored(experts, outputs, inputs)
        return floats(rng, shape, element, scale=0.3, any_address=True)

    return {
        "gate_up": weight(rows, hidden),
        "gate_up_bias": floats(rng, (experts, rows), any_address=True),
        "down": weight(hidden, width),
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
    there = [name for name in (*names, "gate_up_bias", "down_bias") if inputs[name] is not None]
    name = str(rng.choice(there))
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


def is_wrong(inputs: Inputs, top_k: int, layout: Layout) -> bool:
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
    wrong_experts = wrong_mxfp4 if layout.mxfp4 else wrong_dense
    if hidden[1] == 0 or wrong_experts(shapes, layout, logits_shape[1], hidden[1]):
        return True
    assert router is not None
    return bool(np.isnan(router.array).any())


def wrong_dense(shapes: dict[str, Shape], layout: Layout, experts: int, hidden: int) -> bool:
    gate_up = shapes["gate_up"]
    if len(gate_up) != 3:
        return True
    width = gate_up[1 if layout.transposed else 2] // layout.rows_each
    rows = layout.rows_each * width
    expected = {
        "gate_up": layout.stored(experts, rows, hidden),
        "gate_up_bias": (experts, rows),
        "down": layout.stored(experts, hidden, width),
        "down_bias": (experts, hidden),
    }
    return width == 0 or differ(shapes, expected)


def wrong_mxfp4(shapes: dict[str, Shape], layout: Layout, experts: int, hidden: int) -> bool:
    scales = shapes["gate_up_scales"]
    width = scales[1] // layout.rows_each if len(scales) > 1 else 0
    if width == 0 or width % 32 or hidden % 32:
        return True
    rows = layout.rows_each * width
    expected = {
        "gate_up_blocks": (experts, rows, hidden // 32, 16),
        "gate_up_scales": (experts, rows, hidden // 32),
        "gate_up_bias": (experts, rows),
        "down_blocks": (experts, hidden, width // 32, 16),
        "down_scales": (experts, hidden, width // 32),
        "down_bias": (experts, hidden),
    }
    return differ(shapes, expected)


def differ(shapes: dict[str, Shape], expected: dict[str, Shape]) -> bool:
    """Say whether an input that is there has another shape than expected."""
    return any(shapes[name] != shape for name, shape in expected.items() if name in shapes)
