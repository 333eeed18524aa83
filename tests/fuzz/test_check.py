"""The fuzzer's judge on cases that it once judged wrongly, each at its smallest."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fuzz.case import FLOAT, INT8, MODES, Case, Tensor
from fuzz.check import expectation
from support.native_levels import NativeCase, cpu_levels, needs_native, run_at_level
from support.op_models import op_model

HUGE = 3e38  # a float32, but twice it is none


def a_scale_that_overflows(mode: str) -> Case:
    """Tokens of zeros, and two rows of twos; only the scale of the first row is huge."""
    inputs = {
        "x": Tensor(np.zeros((1, 32), np.float32), FLOAT),
        "weight": Tensor(np.full((2, 32), 2, np.int8), INT8),
        "scales": Tensor(np.array([[HUGE], [1]], np.float32), FLOAT),
        "bias": Tensor(np.array([0.5, 0.5], np.float32), FLOAT),
    }
    return Case("LinearInt8", inputs, {}, mode, ((FLOAT, (1, 2)),))


@pytest.mark.parametrize("first", [0.5, np.nan])
def test_a_weight_that_overflows_leaves_its_row_open_and_no_other(first: float) -> None:
    """The definition has 0.5 for the first row in float64, and NaN in float32: ∞ · 0."""
    judge = expectation(a_scale_that_overflows("exact"))
    judge.check([np.array([[first, 0.5]], np.float32)])
    for second in (0.6, np.nan):
        with pytest.raises(AssertionError, match="1 outputs differ"):
            judge.check([np.array([[first, second]], np.float32)])


@needs_native
@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_passes_with_a_weight_that_overflows(level: str, tmp_path: Path) -> None:
    cases = [a_scale_that_overflows(mode) for mode in MODES]
    inputs = {name: torch.from_numpy(x.array) for name, x in cases[0].inputs.items()}
    model = op_model("LinearInt8", inputs, {}).SerializeToString()
    runs = [NativeCase(model, inputs, {"gptoss.activations": mode}) for mode in MODES]
    for case, outputs in zip(cases, run_at_level(level, runs, tmp_path), strict=True):
        expectation(case).check([x.numpy() for x in outputs])


def test_a_sum_that_overflows_before_its_scale_is_left_open() -> None:
    """6e38 · 1e-4 is a float32, and 6e38 is none: some kernels multiply by the scale last."""
    inputs = {
        "x": Tensor(np.array([[HUGE] + 31 * [0]], np.float32), FLOAT),
        "weight": Tensor(np.array([[2] + 31 * [0], 32 * [0]], np.int8), INT8),
        "scales": Tensor(np.full((2, 1), 1e-4, np.float32), FLOAT),
        "bias": Tensor(np.array([0.5, 0.5], np.float32), FLOAT),
    }
    judge = expectation(Case("LinearInt8", inputs, {}, "exact", ((FLOAT, (1, 2)),)))
    for first in (6e34, np.inf):
        judge.check([np.array([[first, 0.5]], np.float32)])
        with pytest.raises(AssertionError, match="1 outputs differ"):
            judge.check([np.array([[first, 0.6]], np.float32)])


def test_what_rounding_the_tokens_does_is_allowed_in_the_modes_that_round_them() -> None:
    """A gate of -50 leaves almost nothing, which a step of bfloat16 in the token changes by 15%."""
    rows = {
        "hidden": [[1.0039]],
        "router_logits": [[0.0]],
        "gate_up": [[[-50.0, 0.0]]],
        "gate_up_bias": None,
        "down": [[[1.0]]],
        "down_bias": None,
    }
    inputs = {
        name: None if x is None else Tensor(np.array(x, np.float32), FLOAT)
        for name, x in rows.items()
    }
    attributes = {"top_k": 1, "alpha": 1.702, "limit": 0.0}
    gate = -50 * float(torch.tensor(1.0039).bfloat16())
    found = [np.array([[gate / (1 + np.exp(-1.702 * gate))]], np.float32)]
    for mode in MODES:
        judge = expectation(Case("MoEDispatch", inputs, attributes, mode, ((FLOAT, (1, 1)),)))
        if mode == "exact":
            with pytest.raises(AssertionError, match="against the definition"):
                judge.check(found)
        else:
            judge.check(found)
            with pytest.raises(AssertionError, match="against the definition"):
                judge.check([found[0] * 5])
