"""The native LinearPacked: against its definition in float64, at every CPU level, and on operands
at any address.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.custom_ops.linear_packed import LARGEST_BASE, Packed, unpack
from support.linear_contract import MODES, LinearContract
from support.native_levels import (
    NativeCase,
    cpu_levels,
    native_session,
    needs_native,
    run_at_level,
)
from support.op_models import bare_model, op_model, run_ort
from support.packed_inputs import PARTS, Inputs, packed_inputs, packed_parts, random_weight
from support.tolerances import NATIVE_LINEAR

pytestmark = needs_native

MANY = 40  # tokens, which Linear's kernels multiply
# (N, K, M): one and several tokens, a block and many, whole and partial runs, tiles, panels and
# blocks of rows, nothing to sum, nothing to compute.
SHAPES = (
    (0, 64, 3),
    (1, 64, 1),
    (1, 2880, 70),
    (2, 128, 17),
    (3, 576, 5),
    (4, 0, 3),
    (5, 64, 40),
    (7, 192, 31),
    (8, 832, 130),
    (24, 320, 33),
    (25, 320, 131),
    (47, 1472, 128),
    (70, 2880, 66),
    (600, 64, 20),
    (32, 0, 4),
)


def weight_of(inputs: Inputs) -> torch.Tensor:
    return unpack(Packed(*(inputs[name] for name in PARTS)))


def assert_is_the_definition(found: torch.Tensor, inputs: Inputs, mode: str = "exact") -> None:
    x = inputs["x"].double() if mode == "exact" else inputs["x"].bfloat16().double()
    weight, bias = weight_of(inputs).double(), inputs["bias"]
    bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.double()
    expected = torch.ops.gptoss.linear(x, weight, bias)
    magnitude = torch.ops.gptoss.linear(x.abs(), weight.abs(), bias.abs())
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert torch.all((found - expected).abs() <= NATIVE_LINEAR * magnitude)


PACKED = LinearContract("LinearPacked", packed_inputs, PARTS, 64, assert_is_the_definition)


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.integers(0, 70),
    blocks=st.integers(1, 12),
    rows=st.integers(1, 200),
    with_bias=st.booleans(),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 2**31),
)
def test_any_shape(
    tokens: int, blocks: int, rows: int, with_bias: bool, mode: str, seed: int
) -> None:
    PACKED.check_shape(tokens, blocks, rows, with_bias, mode, seed)


@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_computes_the_definition(level: str, tmp_path: Path) -> None:
    PACKED.check_shapes(level, SHAPES, tmp_path)


@pytest.mark.parametrize("level", cpu_levels())
@pytest.mark.parametrize("tokens", [1, MANY])
def test_every_code_is_unpacked_exactly(level: str, tokens: int, tmp_path: Path) -> None:
    """Each row has one weight: all codes beside all lower bytes, with small and large bases."""
    codes = torch.arange(16, dtype=torch.uint8).repeat_interleave(256)
    low = torch.arange(256, dtype=torch.uint8).repeat(16)
    low[(codes & 7) == 0] = 0
    drawn = []
    for column, base in ((5, 50), (40, 57), (63, 60)):
        lows = torch.zeros(4096, 64, dtype=torch.uint8)
        highs = torch.zeros(4096, 32, dtype=torch.uint8)
        lows[:, column] = low
        highs[:, column % 32] = codes << (4 if column >= 32 else 0)
        drawn.append(
            {
                "x": torch.ones(tokens, 64),
                "low": lows,
                "high": highs,
                "bases": torch.full((4096,), base, dtype=torch.uint8),
                "positions": torch.zeros(0, 2, dtype=torch.int32),
                "values": torch.zeros(0, dtype=torch.bfloat16),
                "bias": None,
            }
        )
    for inputs, [found] in zip(
        drawn, run_at_level(level, [PACKED.case(x) for x in drawn], tmp_path), strict=True
    ):
        assert torch.equal(found, weight_of(inputs).float().sum(1).expand_as(found))


# level scalar sums a row at once in float64, and the exceptions afterwards
@pytest.mark.parametrize("level", cpu_levels()[1:])
@pytest.mark.parametrize("mode", MODES)
def test_many_tokens_have_the_bits_of_linear(level: str, mode: str, tmp_path: Path) -> None:
    """The same kernel multiplies the same weights, exceptions among them."""
    packed = packed_inputs(MANY, 832, 150, True)
    whole = {"x": packed["x"], "weight": weight_of(packed), "bias": packed["bias"]}
    linear = NativeCase(
        op_model("Linear", whole, {}).SerializeToString(), whole, {"gptoss.activations": mode}
    )
    [[found], [expected]] = run_at_level(level, [PACKED.case(packed, mode), linear], tmp_path)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("level", cpu_levels())
def test_rows_that_are_all_exceptions_or_zeros(level: str, tmp_path: Path) -> None:
    weight = random_weight(40, 128)
    weight[3] = 0
    exponents = torch.arange(128).remainder(2) * 60 - 30
    weight[[7, 8, 39]] = torch.exp2(exponents.float()).bfloat16()
    drawn = []
    for tokens in (1, 6, MANY):
        x = torch.randn(tokens, 128, generator=torch.Generator().manual_seed(tokens))
        drawn.append({"x": x, **packed_parts(weight), "bias": None})
    assert len(drawn[0]["values"]) >= 3 * 64
    PACKED.check_level(level, [(inputs, "exact") for inputs in drawn], tmp_path)


@pytest.mark.parametrize("level", cpu_levels())
def test_a_token_has_the_same_bits_beside_others(level: str, tmp_path: Path) -> None:
    inputs = packed_inputs(24, 832, 150, True)
    for mode in MODES:
        PACKED.check_counts(level, inputs, (1, 2, 3, 5, 8, 24), mode, tmp_path)


@pytest.mark.parametrize("tokens", [1, MANY])
def test_the_number_of_threads_changes_nothing(tokens: int) -> None:
    PACKED.check_threads(tokens)


@pytest.mark.parametrize("level", cpu_levels())
def test_operands_at_odd_addresses(level: str, tmp_path: Path) -> None:
    drawn = [
        (packed_inputs(tokens, 320, 37, True), offset)
        for tokens in (1, MANY)
        for offset in (1, 7, 61)
    ]
    PACKED.check_addresses(level, drawn, tmp_path)


@pytest.mark.parametrize("level", cpu_levels())
def test_nan_and_infinity_reach_their_own_row_only(level: str, tmp_path: Path) -> None:
    drawn = [packed_inputs(tokens, 128, 35, True) for tokens in (4, MANY)]
    PACKED.check_not_finite(level, drawn, tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x", torch.zeros(64), r"'x': found shape \(64\), expected rank 2 \(N, K\)"),
        ("x", torch.zeros(2, 128), r"'low': found shape \(3, 64\), expected \(M, 128\)"),
        ("high", torch.zeros(3, 64).byte(), r"'high': found shape \(3, 64\), expected \(3, 32\)"),
        ("high", torch.zeros(96).byte(), r"'high': found shape \(96\), expected \(3, 32\)"),
        ("bases", torch.zeros(2).byte(), r"'bases': found shape \(2\), expected \(3\)"),
        (
            "bases",
            torch.tensor([0, LARGEST_BASE + 1, 3]).byte(),
            f"'bases': found 120, expected at most {LARGEST_BASE}",
        ),
        ("positions", torch.zeros(4).int(), r"'positions': found shape \(4\), expected \(X, 2\)"),
        ("positions", torch.zeros(2, 3).int(), r"'positions': found shape \(2, 3\)"),
        ("values", torch.zeros(3).bfloat16(), r"'values': found shape \(3\), expected \(2\)"),
        ("positions", torch.tensor([[0, 1], [3, 0]]).int(), "'positions': found other ones"),
        ("positions", torch.tensor([[0, 1], [1, 64]]).int(), "'positions': found other ones"),
        ("positions", torch.tensor([[0, 1], [0, -1]]).int(), "'positions': found other ones"),
        ("positions", torch.tensor([[-1, 63], [0, 1]]).int(), "'positions': found other ones"),
        ("positions", torch.tensor([[0, 1], [0, 1]]).int(), "expected ascending rows"),
        ("positions", torch.tensor([[1, 0], [0, 1]]).int(), "expected ascending rows"),
        ("bias", torch.zeros(4), r"'bias': found shape \(4\), expected \(3\)"),
    ],
)
def test_refuses(name: str, value: torch.Tensor, message: str) -> None:
    inputs = packed_inputs(2, 64, 3, True)
    inputs["positions"] = torch.tensor([[0, 1], [2, 0]], dtype=torch.int32)
    inputs["values"] = torch.ones(2, dtype=torch.bfloat16)
    inputs[name] = value
    session = native_session(bare_model("LinearPacked", inputs, {}).SerializeToString())
    with pytest.raises(RuntimeError, match=message):
        run_ort(session, inputs)


def test_refuses_a_width_that_is_no_multiple_of_64() -> None:
    inputs = packed_inputs(2, 64, 3, True)
    inputs["x"], inputs["low"] = torch.zeros(2, 96), torch.zeros(3, 96).byte()
    session = native_session(bare_model("LinearPacked", inputs, {}).SerializeToString())
    with pytest.raises(RuntimeError, match=r"expected \(N, K\) with K a multiple of 64"):
        run_ort(session, inputs)


def test_the_mode_rounds_tokens_at_exceptions_too() -> None:
    """1 + 2^-10 is no bfloat16: the difference shows in exact arithmetic."""
    weight = torch.ones(8, 64, dtype=torch.bfloat16)
    weight[:, 9] = 2.0**40
    x = torch.zeros(1, 64)
    x[0, 9] = 1 + 2.0**-10
    inputs = {"x": x, **packed_parts(weight), "bias": None}
    for mode, expected in (("exact", 1 + 2.0**-10), ("bf16", 1.0), ("int8", 1.0)):
        found = run_ort(native_session(PACKED.model(inputs), {"gptoss.activations": mode}), inputs)[
            0
        ]
        assert np.unique(found.numpy()) == np.float32(expected * 2.0**40)
