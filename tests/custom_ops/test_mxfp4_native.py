"""The native quantizer against its definition in PyTorch: the same bytes, at every CPU level."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.custom_ops import mxfp4_native
from gptoss_onnx.custom_ops.mxfp4 import SCALE_NAN
from gptoss_onnx.custom_ops.mxfp4_native import is_exact, quantize
from gptoss_onnx.custom_ops.mxfp4_quantize import empty_mxfp4, quantize_mxfp4
from gptoss_onnx.errors import RuntimeUnavailable
from support.mxfp4_cases import CASES, DTYPES, check, check_every_code, made
from support.native_levels import needs_native

TESTS = Path(__file__).parents[1]


@needs_native
@settings(max_examples=150, deadline=None)
@given(
    case=st.sampled_from(sorted(CASES)),
    rows=st.integers(1, 70),
    groups=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
    columns=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_the_bytes_are_those_of_the_definition(
    case: str, rows: int, groups: int, dtype: torch.dtype, columns: bool, seed: int
) -> None:
    check(made(case, rows, groups, dtype, seed), columns=columns)


@needs_native
def test_every_code_of_every_scale_is_decoded() -> None:
    check_every_code()


@needs_native
def test_the_scalar_version_gives_them_too() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "support.mxfp4_cases"],
        env={**os.environ, "GPTOSS_CPU_LEVEL": "scalar", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout.strip()) == (0, "scalar"), result.stderr


def test_without_the_library_the_definition_itself_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mxfp4_native, "_library", lambda: None)
    weight = made("normal", 5, 3, torch.bfloat16, 0)
    ours, expected = quantize(weight), quantize_mxfp4(weight)
    assert torch.equal(ours.blocks, expected.blocks)
    assert not is_exact(weight)


@needs_native
def test_a_library_that_cannot_quantize_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mxfp4_native, "_FUNCTIONS", {"gptoss_of_later": ()})
    mxfp4_native._library.cache_clear()
    with pytest.raises(RuntimeUnavailable, match="too old for MXFP4; to rebuild it, reinstall"):
        quantize(torch.zeros(1, 32))


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_the_scale_of_nan(bad: float, columns: bool) -> None:
    weight = torch.ones(9, 96)
    weight[7, 40] = bad
    scales = quantize(weight.T.contiguous() if columns else weight, columns=columns).scales
    assert (scales == SCALE_NAN).nonzero().tolist() == [[7, 1]]
    assert not is_exact(weight)


@pytest.mark.parametrize("rows", [1, 8, 77])
def test_some_groups_of_wider_tensors_are_written_and_no_others(rows: int) -> None:
    weight = made("normal", rows, 6, torch.bfloat16, 0).T.contiguous()
    blocks, scales = empty_mxfp4(rows, 32 * 8)
    blocks.fill_(7)
    scales.fill_(7)
    for first, end in ((0, 4), (4, 6)):
        part = weight[32 * first : 32 * end]
        into = blocks[:, 1 + first : 1 + end], scales[:, 1 + first : 1 + end]
        for way in (quantize_mxfp4, quantize):
            way(part, columns=True, into=into)
    whole = quantize_mxfp4(weight, columns=True)
    assert torch.equal(blocks[:, 1:7], whole.blocks)
    assert torch.equal(scales[:, 1:7], whole.scales)
    assert blocks[:, [0, 7]].unique().tolist() == scales[:, [0, 7]].unique().tolist() == [7]


def test_room_that_is_too_small_is_an_error() -> None:
    weight = torch.zeros(4, 64)
    for depth, rows in ((32, 4), (64, 3), (96, 4)):
        with pytest.raises(AssertionError):
            quantize(weight, into=empty_mxfp4(rows, depth))
