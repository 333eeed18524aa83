"""The case of a seed: the same in every process."""

import numpy as np

from fuzz.case import Case
from fuzz.draw_attention import draw_attention
from fuzz.draw_linear import draw_linear
from fuzz.draw_linear_int8 import draw_linear_int8
from fuzz.draw_linear_packed import draw_linear_packed
from fuzz.draw_moe import draw_moe
from fuzz.draw_moe_separate import draw_moe_separate

# two of the MoE ops share one
DRAWS = (
    draw_linear,
    draw_linear_int8,
    draw_linear_packed,
    draw_moe,
    draw_moe,
    draw_moe_separate,
    draw_attention,
)


def draw(seed: int) -> Case:
    """Draw one call of one op."""
    rng = np.random.default_rng(seed)
    return DRAWS[int(rng.integers(0, len(DRAWS)))](rng)
