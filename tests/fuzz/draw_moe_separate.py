"""Random calls of MoEDispatchSeparate.

Legend: N tokens, Hd hidden size, E experts, I expert width.
"""

import numpy as np

from fuzz.case import (
    FLOAT,
    FLOAT_TYPES,
    MODES,
    Case,
    Shape,
    Tensor,
    floats,
    misshapen,
    refusal,
    shapes_of,
    size,
    sprinkle,
)
from fuzz.draw_moe import (
    MOST_WEIGHTS,
    SPECIAL_WEIGHTS,
    WRONG_ATTRIBUTES,
    Inputs,
    logits,
    with_wild_tokens,
)


def draw_moe_separate(rng: np.random.Generator) -> Case:
    """Draw a call, one in four of them wrong."""
    experts, hidden = size(rng, 1, 12), size(rng, 1, 384)
    width = size(rng, 1, max(1, min(384, MOST_WEIGHTS // (3 * experts * hidden))))
    tokens = size(rng, 60, 200) if rng.random() < 0.2 else size(rng, 0, 80)
    element = int(rng.choice(FLOAT_TYPES))
    shapes = {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
    inputs: Inputs = {
        "hidden": floats(rng, (tokens, hidden), scale=10 ** rng.uniform(-2, 0.5)),
        "router_logits": logits(rng, tokens, experts),
    }
    for name, shape in shapes.items():
        for expert in range(experts):
            matrix = floats(rng, shape, element, scale=0.3, any_address=True)
            inputs[f"{name}_{expert}"] = matrix
    attributes = draw_attributes(rng, experts)
    top_k = int(attributes["top_k"])
    wild: set[tuple[str, int]] = set()
    if rng.random() < 0.3:
        inputs = with_wild_tokens(rng, inputs, wild)
    if rng.random() < 0.3:
        name, expert = str(rng.choice(list(shapes))), int(rng.integers(0, experts))
        tensor = inputs[f"{name}_{expert}"]
        assert tensor is not None
        inputs[f"{name}_{expert}"] = sprinkle(rng, tensor, SPECIAL_WEIGHTS)
        wild.add(("expert", expert))
    if rng.random() < 0.2:
        changed = misshapen(rng, inputs)
        # the kernel looks at no expert that no token visits, the definition at all
        inputs = changed if is_wrong(changed, top_k, experts) else inputs
    wrong_attribute = rng.random() < 0.06
    if wrong_attribute:
        name, value = WRONG_ATTRIBUTES[int(rng.integers(0, len(WRONG_ATTRIBUTES)))]
        attributes[name] = value
    wrong = wrong_attribute or is_wrong(inputs, top_k, experts)
    outputs = () if wrong else ((FLOAT, shapes_of(inputs)["hidden"]),)
    repeat = str(rng.choice(("no", "no", "again", "at once")))
    threads, mode = int(rng.integers(1, 4)), str(rng.choice(MODES))
    op = "MoEDispatchSeparate"
    error = refusal(op) if wrong else None
    return Case(op, inputs, attributes, mode, outputs, error, threads, repeat, wild=frozenset(wild))


def draw_attributes(rng: np.random.Generator, experts: int) -> dict[str, int | float | str]:
    """Draw the attributes that a node states: of the later ones some."""
    attributes: dict[str, int | float | str] = {
        "top_k": int(rng.integers(1, experts + 1)),
        "alpha": float(rng.choice((1.702, 1.0, 0.0, -1.0))),
        "limit": float(rng.choice((7.0, 0.0, 1e30, np.inf))),
    }
    later = {"beta": float(rng.choice((0.0, 1.0, -0.5))), "normalize": int(rng.integers(0, 2))}
    return attributes | {name: value for name, value in later.items() if rng.random() < 0.6}


def is_wrong(inputs: Inputs, top_k: int, experts: int) -> bool:
    """Say whether a shape that the kernel looks at does not fit, or a router logit is NaN."""
    shapes, router = shapes_of(inputs), inputs["router_logits"]
    hidden, gate = shapes["hidden"], shapes["gate_0"]
    assert router is not None
    if len(hidden) != 2 or shapes["router_logits"] != (hidden[0], experts) or experts < top_k:
        return True
    if hidden[1] == 0 or len(gate) != 2 or gate[0] == 0 or gate[1] != hidden[1]:
        return True
    if np.isnan(router.array).any():
        return True
    expected: dict[str, Shape] = {"gate": gate, "up": gate, "down": (gate[1], gate[0])}
    return any(
        shapes[f"{name}_{expert}"] != shape
        for expert in visited(router, top_k)
        for name, shape in expected.items()
    )


def visited(router: Tensor, top_k: int) -> list[int]:
    """Return the experts that some token chooses."""
    order = np.argsort(-router.array, axis=1, kind="stable")
    return [int(expert) for expert in np.unique(order[:, :top_k])]
