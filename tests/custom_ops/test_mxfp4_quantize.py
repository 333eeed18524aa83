"""Encoding MXFP4: against every level and scale tried one by one, and what it promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.custom_ops.mxfp4 import LEVELS, decode_mxfp4
from gptoss_onnx.custom_ops.mxfp4_quantize import Quantized, is_mxfp4, quantize_mxfp4
from support.tolerances import MXFP4_SUMS

BLOCKS = st.binary(min_size=16, max_size=16)
# 6 times a larger scale is no float32
SCALES = st.integers(0, 252)
SIZES = np.array(LEVELS[:8])


def quantized(block: np.ndarray, dtype: torch.dtype = torch.float32) -> Quantized:
    return quantize_mxfp4(torch.tensor(block[None], dtype=torch.float64).to(dtype))


def decoded(found: Quantized) -> torch.Tensor:
    return decode_mxfp4(found.blocks, found.scales)


def nearest(values: np.ndarray, exponent: int) -> np.ndarray:
    """Each value's nearest level at a scale, by trying all: of two as near, the even code."""
    sizes = np.abs(np.asarray(values, np.float64)) / 2.0**exponent
    distances = np.abs(sizes[:, None] - SIZES)
    least = distances.min(1, keepdims=True)
    order = np.argsort(np.arange(8) % 2, kind="stable")  # even codes first
    codes = order[(distances[:, order] == least).argmax(1)]
    return np.copysign(SIZES[codes] * 2.0**exponent, values)


def amax_exponent(values: np.ndarray) -> int:
    """The scale that the specification proposes."""
    largest = np.abs(values).max()
    return max(-127, min(125, int(np.floor(np.log2(largest))) - 2)) if largest else -127


@st.composite
def numbers(draw: st.DrawFn) -> np.ndarray:
    """A block of bfloat16 numbers, of one spread or of several, from 2^-133 to the largest."""
    exponent = draw(st.integers(-133, 127))
    width = draw(st.sampled_from([1, 3, 8, 260]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    exponents = np.clip(exponent - generator.integers(0, width, 32), -133, 127)
    values = generator.choice([-1.0, 1.0], 32) * generator.uniform(1, 2, 32) * 2.0**exponents
    values[generator.random(32) < draw(st.sampled_from([0.0, 0.3, 0.95]))] = 0.0
    found = torch.tensor(values).clamp(-3.38e38, 3.38e38).bfloat16()
    return found.double().numpy()


@settings(max_examples=300, deadline=None)
@given(values=numbers())
def test_each_number_is_the_nearest_level_and_no_scale_of_three_loses_less(
    values: np.ndarray,
) -> None:
    found = quantized(values)
    exponent = int(found.scales[0, 0]) - 127
    result = decoded(found)[0].double().numpy()
    np.testing.assert_array_equal(result, nearest(values, exponent))
    proposed = amax_exponent(values)
    tried = [e for e in (proposed, proposed - 1, proposed + 1) if -127 <= e <= 125]
    assert exponent in tried
    losses = {e: np.square(nearest(values, e) / 2.0**proposed - values / 2.0**proposed).sum()
              for e in tried}  # fmt: skip
    assert losses[exponent] <= min(losses.values()) * (1 + MXFP4_SUMS)
    assert losses[exponent] <= losses[proposed] * (1 + MXFP4_SUMS)


@settings(max_examples=200, deadline=None)
@given(values=numbers())
def test_what_is_quantized_stays_as_it_is(values: np.ndarray) -> None:
    once = quantized(values)
    again = quantize_mxfp4(decoded(once))
    assert torch.equal(once.blocks, again.blocks)
    assert torch.equal(once.scales, again.scales)
    assert again.lost == 0.0


@settings(max_examples=300, deadline=None)
@given(block=BLOCKS, scale=SCALES, columns=st.booleans())
def test_mxfp4_keeps_every_value_and_sign(block: bytes, scale: int, columns: bool) -> None:
    blocks = torch.frombuffer(bytearray(block), dtype=torch.uint8).view(1, 1, 16)
    weight = decode_mxfp4(blocks, torch.tensor([[scale]], dtype=torch.uint8))
    assert is_mxfp4(weight.T if columns else weight, columns=columns)
    found = quantize_mxfp4(weight.T if columns else weight, columns=columns)
    assert found.lost == 0.0
    assert torch.equal(decoded(found).view(torch.int32), weight.view(torch.int32))


@settings(max_examples=200, deadline=None)
@given(values=numbers())
def test_the_sums_are_those_of_the_values(values: np.ndarray) -> None:
    found = quantized(values)
    lost = np.square(decoded(found)[0].double().numpy() - values).sum()
    assert found.total == pytest.approx(np.square(values).sum(), rel=MXFP4_SUMS)
    assert found.lost == pytest.approx(lost, rel=MXFP4_SUMS)
    assert (found.lost == 0.0) == (lost == 0.0) == is_mxfp4(torch.tensor(values[None]).float())


def test_a_loss_beyond_float32_is_no_zero() -> None:
    values = np.zeros(32)
    values[:2] = 2.0**100, 2.0**-149
    found = quantized(values)
    assert found.lost == 2.0**-298
    assert not is_mxfp4(torch.tensor(values[None]).float())


def test_ties_go_to_even_codes() -> None:
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0] * 4 + [6.0, -0.25, -5.0, 0.0])
    result = decoded(quantized(ties))[0]
    expected = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0] * 4 + [6.0, -0.0, -4.0, 0.0]
    assert torch.equal(result.view(torch.int32), torch.tensor(expected).view(torch.int32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_the_scale_of_nan(bad: float) -> None:
    weight = torch.ones(2, 64)
    weight[1, 40] = bad
    assert quantize_mxfp4(weight).scales.tolist()[1][1] == 255
    assert (quantize_mxfp4(weight).scales == 255).sum() == 1
    assert not is_mxfp4(weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 32), (3, 64), (700, 256), (5, 4096)])
def test_columns_are_rows_turned(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows, columns = quantize_mxfp4(weight), quantize_mxfp4(weight.T.contiguous(), columns=True)
    assert rows.blocks.shape == (shape[0], shape[1] // 32, 16)
    assert torch.equal(rows.blocks, columns.blocks)
    assert torch.equal(rows.scales, columns.scales)
    assert rows.lost == pytest.approx(columns.lost, rel=MXFP4_SUMS)
    again = decoded(rows).to(dtype)
    assert is_mxfp4(again)
    assert is_mxfp4(again.T.contiguous(), columns=True)
    assert not is_mxfp4(weight)


def test_another_scale_than_the_proposed_one_is_found_where_it_is_better() -> None:
    """All are 7.9, which 6 is far from; or all but one are ¼, which halves lose."""
    larger, smaller = np.full(32, 7.9), np.full(32, 0.25)
    smaller[0] = 4.0
    assert quantized(larger).scales.item() == 128
    assert quantized(smaller).scales.item() == 126
