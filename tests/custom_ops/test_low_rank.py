"""Sums with low-rank products: the native library against PyTorch, at every CPU level."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.custom_ops import low_rank
from gptoss_onnx.custom_ops.low_rank import add_low_rank
from gptoss_onnx.errors import RuntimeUnavailable
from support.low_rank_cases import SHAPES, check
from support.native_levels import needs_native

TESTS = Path(__file__).parents[1]


@needs_native
@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(0, 13),
    columns=st.integers(1, 420),
    rank=st.integers(0, 40),
    seed=st.integers(0, 2**32),
)
def test_sums_are_those_of_the_definition(rows: int, columns: int, rank: int, seed: int) -> None:
    check(rows, columns, rank, seed)


@needs_native
@pytest.mark.parametrize("level", ["scalar", ""])
def test_each_level_gives_them(level: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "support.low_rank_cases"],
        env={**os.environ, "GPTOSS_CPU_LEVEL": level, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().startswith(level)


@needs_native
@pytest.mark.parametrize("many", [1, 3, 8])
def test_a_row_is_the_same_whatever_rows_it_is_computed_with(many: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(11, 7, generator=generator), torch.randn(7, 250, generator=generator)
    numbers = torch.randn(11, 250, generator=generator).bfloat16()
    whole = add_low_rank(numbers, left, right, 0.3)
    steps = [slice(first, first + many) for first in range(0, 11, many)]
    pieces = [add_low_rank(numbers[step], left[step], right, 0.3) for step in steps]
    assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_the_library_the_definition_itself_is_used(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_rank, "_library", lambda: None)
    check(*shape, 0)


@needs_native
def test_a_library_without_sums_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "_FUNCTIONS", {"gptoss_of_later": ()})
    low_rank._library.cache_clear()
    with pytest.raises(RuntimeUnavailable, match="too old for sums with adapters"):
        add_low_rank(torch.zeros(1, 8).bfloat16(), torch.zeros(1, 1), torch.zeros(1, 8), 1)


def test_matrices_that_do_not_fit_are_an_error() -> None:
    numbers, left, right = torch.zeros(2, 32).bfloat16(), torch.zeros(2, 3), torch.zeros(3, 32)
    wrong = ((numbers[:1], left, right), (numbers, left[:, :2], right), (numbers, left, right[:2]))
    for arguments in wrong:
        with pytest.raises((AssertionError, RuntimeError)):
            add_low_rank(*arguments, 1.0)
