"""LinearPacked: that packing loses nothing, its definition, and its portable body in ONNX Runtime
and in onnx.reference.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.custom_ops.linear_packed import LARGEST_BASE, Packed, choose_bases, pack, unpack
from gptoss_onnx.errors import InputError
from support.op_models import op_model, run_ort, run_reference, session_of
from support.packed_inputs import PARTS, packed_inputs, packed_parts, random_weight
from support.tolerances import BODY_EXPERTS, BODY_FLOAT32


def bits_of(weight: torch.Tensor) -> torch.Tensor:
    return weight.view(torch.int16)


def assert_lossless(weight: torch.Tensor) -> None:
    assert torch.equal(bits_of(unpack(pack(weight))), bits_of(weight))


def every_bfloat16() -> torch.Tensor:
    """All 65,536 of them, (256, 256)."""
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16).view(256, 256)


def test_every_bfloat16_comes_back_bit_for_bit() -> None:
    """NaN with their payloads, infinities, subnormals and both zeros too, in any company."""
    weight = every_bfloat16()
    assert_lossless(weight)
    assert_lossless(weight.T.contiguous())
    shuffled = weight.flatten()[torch.randperm(2**16, generator=torch.Generator().manual_seed(0))]
    assert_lossless(shuffled.view(64, 1024))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 9),
    blocks=st.integers(0, 5),
    exceptional=st.sampled_from((0.0, 0.01, 0.5)),
    seed=st.integers(0, 2**31),
)
def test_packing_loses_nothing(rows: int, blocks: int, exceptional: float, seed: int) -> None:
    assert_lossless(random_weight(rows, 64 * blocks, seed, exceptional))


def test_trained_weights_have_few_exceptions() -> None:
    """A normal distribution stands for them: a weight must be 2^-13 of the largest to be one."""
    weight = torch.randn(64, 2880, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert len(pack(weight).values) < 1e-3 * weight.numel()


def test_zeros_are_no_exceptions_and_keep_their_signs() -> None:
    weight = torch.ones(1, 64, dtype=torch.bfloat16)
    weight[0, 1], weight[0, 2] = 0.0, -0.0
    packed = pack(weight)
    assert not len(packed.values)
    assert_lossless(weight)


def test_the_base_leaves_the_fewest_exceptions() -> None:
    """One outlier moves no window: 63 exponents of a kind count for more."""
    weight = torch.ones(2, 64, dtype=torch.bfloat16)
    weight[0, 7] = 2.0**40
    weight[1] = 2.0**-120
    weight[1, 9] = 1
    packed = pack(weight)
    assert packed.positions.tolist() == [[0, 7], [1, 9]]
    assert packed.values.tolist() == [2.0**40, 1]
    # exponent 127 of 1.0 has the upper seven bits 63
    assert 63 - 7 <= choose_bases(weight)[0] <= 63 - 1


def test_halves_of_a_byte_are_32_columns_apart() -> None:
    weight = torch.ones(1, 128, dtype=torch.bfloat16)
    weight[0, 64 + 5], weight[0, 64 + 37] = -1, 4
    packed = pack(weight)
    c = 63 - int(packed.bases[0])
    assert packed.high[0, 32 + 5] == (8 | c) | (c + 1) << 4
    assert packed.high[0, 5] == c | c << 4


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_definition_is_a_projection_by_the_checkpoints_weight(
    with_bias: bool, dtype: torch.dtype
) -> None:
    weight = random_weight(7, 192)
    x = torch.randn(5, 192, dtype=dtype)
    bias = torch.randn(7) if with_bias else None
    expected = torch.ops.gptoss.linear(x, weight, bias)
    found = torch.ops.gptoss.linear_packed(x, *packed_parts(weight).values(), bias)
    assert torch.equal(found, expected)


def test_fake_implementation() -> None:
    torch.library.opcheck(
        torch.ops.gptoss.linear_packed.default, tuple(packed_inputs(3, 64, 5, True).values())
    )


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 64, 1), (3, 128, 7), (17, 192, 40), (0, 64, 5)])
def test_body_computes_the_definition(shape: tuple[int, int, int], with_bias: bool) -> None:
    inputs = packed_inputs(*shape, with_bias)
    model = op_model("LinearPacked", inputs, {})
    expected: torch.Tensor = torch.ops.gptoss.linear_packed(*inputs.values())
    runs = {"onnxruntime": run_ort(session_of(model), inputs)[0]}
    if shape[0]:  # onnx.reference's Gemm has no empty products
        runs["onnx.reference"] = run_reference(model, inputs)[0]
    for found in runs.values():
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=BODY_EXPERTS, atol=BODY_FLOAT32)


@pytest.mark.parametrize("base", [0, 1, 56, LARGEST_BASE])
def test_body_unpacks_every_code_exactly(base: int) -> None:
    """Each row times a token that picks one weight: all 16 codes beside all lower bytes."""
    codes = torch.arange(16, dtype=torch.uint8).repeat_interleave(256)
    low = torch.arange(256, dtype=torch.uint8).repeat(16).view(-1, 64)
    low = torch.where((codes.view(-1, 64) & 7) == 0, 0, low).to(torch.uint8)
    halves = codes.view(-1, 2, 32)
    inputs = {
        "x": torch.eye(64),
        "low": low,
        "high": halves[:, 0] | halves[:, 1] << 4,
        "bases": torch.full((len(low),), base, dtype=torch.uint8),
        "positions": torch.zeros(0, 2, dtype=torch.int32),
        "values": torch.zeros(0, dtype=torch.bfloat16),
        "bias": None,
    }
    expected = unpack(Packed(*(inputs[name] for name in PARTS))).float().T
    found = run_ort(session_of(op_model("LinearPacked", inputs, {})), inputs)[0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bases", torch.tensor([120, 0, 0]).byte(), "found 120, expected at most 119"),
        ("bases", torch.zeros(2).byte(), r"found shape \(2,\), expected \(3,\)"),
        ("high", torch.zeros(3, 64).byte(), r"found shape \(3, 64\), expected \(3, 32\)"),
        ("positions", torch.tensor([[0, 1], [3, 0]]).int(), "within a weight of"),
        ("positions", torch.tensor([[0, 1], [1, 64]]).int(), "within a weight of"),
        ("positions", torch.tensor([[0, 1], [0, -1]]).int(), "within a weight of"),
        ("positions", torch.tensor([[0, 1], [0, 1]]).int(), "expected ascending"),
        ("positions", torch.tensor([[1, 0], [0, 1]]).int(), "expected ascending"),
        ("positions", torch.tensor([[0, 1]]).int(), r"found shape \(1, 2\), expected \(2, 2\)"),
        ("values", torch.zeros(2, 1).bfloat16(), r"found shape \(2, 1\), expected rank 1"),
    ],
)
def test_the_definition_refuses(name: str, value: torch.Tensor, message: str) -> None:
    inputs = packed_inputs(2, 64, 3, True)
    inputs["positions"] = torch.tensor([[0, 1], [2, 0]], dtype=torch.int32)
    inputs["values"] = torch.ones(2, dtype=torch.bfloat16)
    inputs[name] = value
    with pytest.raises(InputError, match=message):
        torch.ops.gptoss.linear_packed(*inputs.values())
