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
