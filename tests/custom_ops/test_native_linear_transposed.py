"""The native Linear on a transposed weight (K, M): against its definition in float64, at every CPU
level, on weights at any address.
"""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.native_levels import NativeCase, cpu_levels, native_session, needs_native, run_at_level
from support.op_models import bare_model, op_model, run_ort
from support.tolerances import NATIVE_LINEAR

pytestmark = needs_native

Inputs = dict[str, torch.Tensor | None]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TRANSPOSED = {"transposed": 1}
# (N, K, M): few tokens and many, runs of rows and what is left of them, parts of registers
SHAPES = (
    (0, 5, 3),
    (1, 1, 1),
    (1, 768, 70),
    (1, 1000, 2304),
    (2, 33, 17),
    (4, 0, 3),
    (5, 64, 40),
    (8, 77, 130),
    (9, 300, 131),
    (15, 385, 128),
    (70, 80, 129),
)


def inputs_of(
    tokens: int, depth: int, rows: int, dtype: torch.dtype, with_bias: bool, seed: int = 0
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(tokens, depth, generator=generator),
        "weight": torch.randn(depth, rows, generator=generator).to(dtype),
        "bias": torch.randn(rows, generator=generator) if with_bias else None,
    }


def model_of(inputs: Inputs) -> bytes:
    return op_model("Linear", inputs, TRANSPOSED).SerializeToString()


def assert_is_the_definition(
    found: torch.Tensor, inputs: Inputs, activations: str = "exact"
) -> None:
    x, weight, bias = inputs["x"].double(), inputs["weight"].double(), inputs["bias"]
    if activations != "exact":
        x = inputs["x"].bfloat16().double()
    bias = torch.zeros(weight.shape[1], dtype=torch.float64) if bias is None else bias.double()
    expected = torch.ops.gptoss.linear(x, weight, bias, True)
    magnitude = torch.ops.gptoss.linear(x.abs(), weight.abs(), bias.abs(), True)
    assert found.shape == expected.shape
    assert torch.all((found - expected).abs() <= NATIVE_LINEAR * magnitude), inputs["weight"].dtype


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(0, 30),
    depth=st.integers(1, 300),
    rows=st.integers(1, 200),
    dtype=st.sampled_from(DTYPES),
    with_bias=st.booleans(),
)
def test_any_shape(tokens: int, depth: int, rows: int, dtype: torch.dtype, with_bias: bool) -> None:
    inputs = inputs_of(tokens, depth, rows, dtype, with_bias)
    assert_is_the_definition(run_ort(native_session(model_of(inputs)), inputs)[0], inputs)


@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_computes_the_definition(level: str, tmp_path: Path) -> None:
    drawn = [
        (inputs_of(*shape, dtype, bool(number % 2), seed=number), activations)
        for number, shape in enumerate(SHAPES)
        for dtype in DTYPES
        for activations in ("exact", "bf16", "int8")
    ]
    cases = [
        NativeCase(model_of(inputs), inputs, {"gptoss.activations": mode}) for inputs, mode in drawn
    ]
    for (inputs, activations), [found] in zip(
        drawn, run_at_level(level, cases, tmp_path), strict=True
    ):
        assert_is_the_definition(found, inputs, activations)


@pytest.mark.parametrize("tokens", [1, 7, 40])
@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_and_bias_may_lie_at_any_address(tokens: int, dtype: torch.dtype) -> None:
    inputs = inputs_of(tokens, 321, 37, dtype, True)
    session = native_session(model_of(inputs))
    for offset in (1, 7, 61):
        moved = {**inputs, **{name: shifted(inputs[name], offset) for name in ("weight", "bias")}}
        assert_is_the_definition(run_ort(session, moved)[0], inputs)


def shifted(tensor: torch.Tensor, offset: int) -> torch.Tensor:
    """Return the tensor `offset` bytes beyond an address that is a multiple of 64."""
    raw = tensor.contiguous().view(torch.uint8)
    memory = torch.empty(raw.numel() + 128, dtype=torch.uint8)
    begin = -memory.data_ptr() % 64 + offset
    place = memory[begin : begin + raw.numel()].view(raw.shape).copy_(raw)
    return torch.frombuffer(place.numpy().data, dtype=tensor.dtype).view(tensor.shape)


@pytest.mark.parametrize("tokens", [1, 8, 40])
def test_the_number_of_threads_changes_nothing(tokens: int) -> None:
    inputs = inputs_of(tokens, 1500, 700, torch.bfloat16, True)
    one, four = (
        run_ort(native_session(model_of(inputs), threads=threads), inputs)[0] for threads in (1, 4)
    )
    assert torch.equal(one, four)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 4, 1), r"input 'x': found shape \(2, 4, 1\), expected rank 2 \(N, K\)"),
        ("weight", (5, 3), r"input 'weight': found shape \(5, 3\), expected \(4, M\)"),
        ("weight", (4,), r"input 'weight': found shape \(4\), expected \(4, M\)"),
        ("bias", (4,), r"input 'bias': found shape \(4\), expected \(3\)"),
    ],
)
def test_wrong_shapes_are_errors(name: str, shape: tuple[int, ...], message: str) -> None:
    inputs = {**inputs_of(2, 4, 3, torch.float32, True), name: torch.ones(shape)}
    session = native_session(bare_model("Linear", inputs, TRANSPOSED).SerializeToString())
    with pytest.raises(RuntimeError, match=f"Linear: {message}"):
        run_ort(session, inputs)


@pytest.mark.parametrize("value", [-1, 2])
def test_a_senseless_layout_is_an_error(value: int) -> None:
    model = bare_model("Linear", inputs_of(2, 4, 3, torch.float32, True), {"transposed": value})
    message = f"Linear: attribute 'transposed': found {value}, expected 0 or 1"
    with pytest.raises(Exception, match=message):
        native_session(model.SerializeToString())
