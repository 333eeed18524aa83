"""LinearInt8: its quantizer, its definition, and its portable body in ONNX Runtime and in
onnx.reference.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptoss_onnx.custom_ops.linear_int8 import BLOCK, dequantize_int8, quantize_int8
from support.int8_inputs import int8_inputs
from support.op_models import op_model, run_ort, run_reference, session_of
from support.tolerances import BODY_EXPERTS, BODY_FLOAT32, INT8_HALF_STEP

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    blocks=st.integers(1, 6),
    dtype=st.sampled_from(FLOATS),
    exponent=st.floats(-4, 3),
    seed=st.integers(0, 2**31),
)
def test_a_quantized_weight_is_within_half_a_step(
    rows: int, blocks: int, dtype: torch.dtype, exponent: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = (10**exponent * torch.randn(rows, blocks * BLOCK, generator=generator)).to(dtype)
    integers, scales = quantize_int8(weight)
    assert (integers.dtype, integers.shape) == (torch.int8, weight.shape)
    assert (scales.dtype, scales.shape) == (torch.float32, (rows, blocks))
    blocked = weight.float().unflatten(1, (-1, BLOCK))
    assert torch.equal(scales, blocked.abs().amax(2) / 127)
    # the largest of a block is held exactly
    assert integers.unflatten(1, (-1, BLOCK)).abs().amax(2).eq(127).all()
    error = (
        (dequantize_int8(integers, scales, torch.float64) - weight.double())
        .unflatten(1, (-1, BLOCK))
        .abs()
    )
    assert (error <= INT8_HALF_STEP * scales.double().unsqueeze(2)).all()


def test_ties_are_rounded_to_even() -> None:
    weight = torch.zeros(1, BLOCK)
    weight[0, :6] = torch.tensor([127, 0.5, 1.5, 2.5, -0.5, -1.5])
    integers, scales = quantize_int8(weight)
    assert scales.item() == 1
    assert integers[0, :6].tolist() == [127, 0, 2, 2, 0, -2]


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, 1e-39])
def test_a_block_with_nothing_to_scale_is_zero(value: float) -> None:
    weight = torch.full((2, 2 * BLOCK), value)
    weight[1, BLOCK:] = 1
    integers, scales = quantize_int8(weight)
    assert scales[0].tolist() == [0, 0] and scales[1, 0] == 0 and scales[1, 1] > 0
    assert not integers[0].any() and not integers[1, :BLOCK].any()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_block_that_is_not_finite_shows_in_its_scale(value: float) -> None:
    weight = torch.ones(1, 2 * BLOCK)
    weight[0, 3] = value
    assert quantize_int8(weight)[1].isfinite().tolist() == [[False, True]]


@pytest.mark.parametrize("with_bias", [True, False])
def test_definition_is_a_projection_by_the_dequantized_weight(with_bias: bool) -> None:
    inputs = int8_inputs(5, 3 * BLOCK, 7, with_bias)
    x, weight, scales, bias = inputs.values()
    wide = torch.stack([weight[:, k] * scales[:, k // BLOCK] for k in range(x.shape[1])], dim=1)
    expected = torch.ops.gptoss.linear(x, wide, bias)
    found = torch.ops.gptoss.linear_int8(x, weight, scales, bias)
    torch.testing.assert_close(found, expected, rtol=BODY_EXPERTS, atol=BODY_FLOAT32)


def test_fake_implementation() -> None:
    torch.library.opcheck(
        torch.ops.gptoss.linear_int8.default, tuple(int8_inputs(3, BLOCK, 5, True).values())
    )


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 32, 1), (3, 96, 7), (17, 160, 40), (0, 64, 5)])
def test_body_computes_the_definition(shape: tuple[int, int, int], with_bias: bool) -> None:
    inputs = int8_inputs(*shape, with_bias)
    model = op_model("LinearInt8", inputs, {})
    expected: Tensor = torch.ops.gptoss.linear_int8(*inputs.values())
    runs = {"onnxruntime": run_ort(session_of(model), inputs)[0]}
    if shape[0]:  # onnx.reference's Gemm has no empty products
        runs["onnx.reference"] = run_reference(model, inputs)[0]
    for found in runs.values():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=BODY_EXPERTS, atol=BODY_FLOAT32)
