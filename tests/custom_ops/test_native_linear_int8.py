"""The native LinearInt8: against its definition in float64, at every CPU level, on weights at any
address.
"""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from gptoss_onnx.custom_ops import DOMAIN
from support.int8_inputs import Inputs, allowed_error, in_float64, int8_inputs
from support.linear_contract import MODES, LinearContract
from support.native_levels import cpu_levels, native_session, needs_native, run_at_level
from support.tolerances import NATIVE_INT8, NATIVE_INT8_NORM

pytestmark = needs_native
InvalidArgument = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument

SEVERAL = (6, 8, 16)  # more than what is multiplied row by row, fewer than AMX tiles are for
FEW = 100  # outputs, of which a norm says little
# (N, K, M): odd blocks, whole and partial runs, tiles and panels, long rows, nothing to sum.
SHAPES = (
    (0, 64, 3),
    (1, 32, 1),
    (1, 2880, 70),
    (3, 544, 5),
    (4, 0, 3),
    (5, 64, 40),
    (6, 5216, 37),
    (7, 96, 100),
    (8, 800, 130),
    (15, 1056, 35),
    (25, 320, 131),
    (33, 32, 33),
    (47, 1504, 128),
    (70, 2880, 66),
    (600, 64, 20),
    (32, 0, 4),
)


def rounded(x: torch.Tensor, mode: str) -> torch.Tensor:
    """Return float64 tokens as a mode keeps them: int8 has one scale for each 32 values."""
    if mode == "exact":
        return x.double()
    if mode == "bf16":
        return x.bfloat16().double()
    blocks = x.unflatten(1, (-1, 32))
    scales = blocks.abs().amax(2, keepdim=True) / 127
    return ((blocks / scales).round() * scales).double().flatten(1)


def definition(inputs: Inputs, mode: str = "exact") -> torch.Tensor:
    """Return the definition in float64, on tokens rounded as a mode keeps them."""
    wide = in_float64(inputs)
    if inputs["x"].numel():
        wide["x"] = rounded(inputs["x"], mode)
    return torch.ops.gptoss.linear_int8(*wide.values())


def assert_is_the_definition(found: torch.Tensor, inputs: Inputs, mode: str = "exact") -> None:
    """Lossy modes are held to exact tokens too: a kernel may keep more than its mode promises."""
    expected = definition(inputs)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert torch.all((found - expected).abs() <= allowed_error(inputs, mode)), mode
    if found.numel() > FEW:
        assert (found - expected).norm() <= NATIVE_INT8_NORM[mode] * expected.norm(), mode


INT8 = LinearContract("LinearInt8", int8_inputs, ("scales", "weight"), 32, assert_is_the_definition)


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.integers(0, 70),
    blocks=st.integers(1, 40),
    rows=st.integers(1, 200),
    with_bias=st.booleans(),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 2**31),
)
def test_any_shape(
    tokens: int, blocks: int, rows: int, with_bias: bool, mode: str, seed: int
) -> None:
    INT8.check_shape(tokens, blocks, rows, with_bias, mode, seed)


@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_computes_the_definition(level: str, tmp_path: Path) -> None:
    INT8.check_shapes(level, SHAPES, tmp_path)


@pytest.mark.parametrize("level", cpu_levels())
@pytest.mark.parametrize("mode", MODES)
def test_tokens_are_rounded_as_the_mode_says(level: str, mode: str, tmp_path: Path) -> None:
    """Against the definition on rounded tokens; where a kernel may keep more, it is the exact one
    that counts.
    """
    inputs = int8_inputs(3, 2880, 256, True, seed=5)
    [[found]] = run_at_level(level, [INT8.case(inputs, mode)], tmp_path)
    expected = definition(inputs, mode)
    assert (found - expected).norm() <= NATIVE_INT8_NORM["rounded"] * expected.norm()


@pytest.mark.parametrize("level", cpu_levels())
def test_an_outlier_does_not_drown_its_neighbours_blocks(level: str, tmp_path: Path) -> None:
    """Real activations have a few values a thousand times the others."""
    inputs = int8_inputs(2, 2880, 64, True)
    inputs["x"][:, 77] *= 1000
    INT8.check_level(level, [(inputs, "exact")], tmp_path)


@pytest.mark.parametrize("level", cpu_levels())
def test_weights_at_odd_addresses(level: str, tmp_path: Path) -> None:
    places = product((1, 8, 40), (1, 7, 61))
    drawn = [(int8_inputs(tokens, 352, 37, True), offset) for tokens, offset in places]
    INT8.check_addresses(level, drawn, tmp_path)


@pytest.mark.parametrize("level", cpu_levels())
def test_nan_and_infinity_reach_their_own_row_only(level: str, tmp_path: Path) -> None:
    drawn = [int8_inputs(tokens, 96, 35, True) for tokens in (4, 9, 40)]
    for inputs in drawn:
        # times 0 an infinity would be NaN, which is not finite either
        inputs["weight"][:, 52] = 3
    INT8.check_not_finite(level, drawn, tmp_path)


@pytest.mark.parametrize("level", cpu_levels())
@pytest.mark.parametrize("mode", MODES)
def test_every_integer_is_widened_exactly(level: str, mode: str, tmp_path: Path) -> None:
    """All 256 bytes times one, −128 as well, which the quantizer does not write."""
    weight = torch.zeros(256, 32, dtype=torch.int8)
    weight[:, 5] = torch.arange(-128, 128)
    drawn = []
    for tokens in (1, 9, 40):
        x = torch.zeros(tokens, 32)
        x[:, 5] = 1
        drawn.append({"x": x, "weight": weight, "scales": torch.full((256, 1), 0.5), "bias": None})
    cases = [INT8.case(inputs, mode) for inputs in drawn]
    for [found] in run_at_level(level, cases, tmp_path):
        expected = (0.5 * torch.arange(-128, 128)).expand_as(found)
        torch.testing.assert_close(found, expected, rtol=NATIVE_INT8["exact"], atol=0)


@pytest.mark.parametrize("level", cpu_levels())
@pytest.mark.parametrize("mode", MODES)
def test_bits_do_not_depend_on_the_other_tokens(level: str, mode: str, tmp_path: Path) -> None:
    """Panels of few tokens are longer than those of many: the sums must not show it."""
    inputs = int8_inputs(SEVERAL[-1], 2880, 70, True)
    INT8.check_counts(level, inputs, SEVERAL, mode, tmp_path)


@pytest.mark.parametrize("tokens", [1, 8, 40])
def test_the_number_of_threads_changes_nothing(tokens: int) -> None:
    INT8.check_threads(tokens)


def bare_session() -> onnxruntime.InferenceSession:
    """A session whose inputs may have any rank."""
    types = {
        "x": onnx.TensorProto.FLOAT,
        "weight": onnx.TensorProto.INT8,
        "scales": onnx.TensorProto.FLOAT,
        "bias": onnx.TensorProto.FLOAT,
    }
    inputs = [helper.make_tensor_value_info(name, element, None) for name, element in types.items()]
    output = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)
    node = helper.make_node("LinearInt8", list(types), ["output"], domain=DOMAIN)
    imports = [helper.make_opsetid("", 24), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, [output]), opset_imports=imports, ir_version=11
    )
    return native_session(model.SerializeToString())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            ((32,), (3, 32), (3, 1), (3,)),
            r"LinearInt8: input 'x': found shape \(32\), expected rank 2 \(N, K\)",
        ),
        (
            ((2, 64), (3, 32), (3, 2), (3,)),
            r"LinearInt8: input 'weight': found shape \(3, 32\), expected \(M, 64\)",
        ),
        (
            ((0, 64), (3, 32), (3, 2), (3,)),
            r"LinearInt8: input 'weight': found shape \(3, 32\), expected \(M, 64\)",
        ),
        (
            ((2, 40), (3, 40), (3, 2), (3,)),
            r"LinearInt8: input 'x': found shape \(2, 40\), expected \(N, K\) with K a multiple of "
            r"32",
        ),
        (
            ((2, 64), (3, 64), (3, 1), (3,)),
            r"LinearInt8: input 'scales': found shape \(3, 1\), expected \(3, 2\)",
        ),
        (
            ((2, 64), (3, 64), (2, 2), (3,)),
            r"LinearInt8: input 'scales': found shape \(2, 2\), expected \(3, 2\)",
        ),
        (
            ((2, 64), (3, 64), (6,), (3,)),
            r"LinearInt8: input 'scales': found shape \(6\), expected \(3, 2\)",
        ),
        (
            ((2, 64), (3, 64), (3, 2), (4,)),
            r"LinearInt8: input 'bias': found shape \(4\), expected \(3\)",
        ),
        (
            ((2, 64), (3, 64), (3, 2), (0,)),
            r"LinearInt8: input 'bias': found shape \(0\), expected \(3\)",
        ),
    ],
)
def test_wrong_shapes_are_errors(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    x, weight, scales, bias = shapes
    feeds = {
        "x": np.ones(x, np.float32),
        "weight": np.ones(weight, np.int8),
        "scales": np.ones(scales, np.float32),
        "bias": np.ones(bias, np.float32),
    }
    with pytest.raises(InvalidArgument, match=message):
        bare_session().run(None, feeds)
