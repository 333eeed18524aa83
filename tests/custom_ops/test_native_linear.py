"""The native Linear: against its definition in float64, at every CPU level, on weights at any
address.
"""

from functools import cache
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
from support.native_levels import NativeCase, cpu_levels, native_session, needs_native, run_at_level
from support.op_models import op_model, run_ort
from support.tolerances import NATIVE_LINEAR

pytestmark = needs_native
InvalidArgument = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument

Inputs = dict[str, torch.Tensor | None]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# (N, K, M): one and several tokens, whole and partial tiles, panels and blocks, nothing to sum,
# nothing to compute.
SHAPES = (
    (0, 5, 3),
    (1, 1, 1),
    (1, 2880, 70),
    (2, 33, 17),
    (3, 100, 5),
    (4, 0, 3),
    (5, 64, 40),
    (8, 777, 130),
    (9, 300, 131),
    (14, 15, 33),
    (15, 385, 128),
    (70, 800, 129),
    (600, 40, 20),
    (12, 0, 4),
)


def linear_inputs(
    tokens: int, depth: int, rows: int, dtype: torch.dtype, with_bias: bool, seed: int = 0
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(tokens, depth, generator=generator),
        "weight": torch.randn(rows, depth, generator=generator).to(dtype),
        "bias": torch.randn(rows, generator=generator) if with_bias else None,
    }


def model_of(inputs: Inputs) -> bytes:
    return op_model("Linear", inputs, {}).SerializeToString()


@cache
def session_for(
    dtype: torch.dtype, with_bias: bool, activations: str = "exact"
) -> onnxruntime.InferenceSession:
    model = model_of(linear_inputs(1, 1, 1, dtype, with_bias))
    return native_session(model, {"gptoss.activations": activations})


def run_native(inputs: Inputs) -> torch.Tensor:
    return run_ort(session_for(inputs["weight"].dtype, inputs["bias"] is not None), inputs)[0]


def assert_is_the_definition(
    found: torch.Tensor, inputs: Inputs, activations: str = "exact"
) -> None:
    x, weight = inputs["x"].double(), inputs["weight"].double()
    if activations != "exact":
        x = inputs["x"].bfloat16().double()
    bias = (
        torch.zeros(weight.shape[0], dtype=torch.float64)
        if inputs["bias"] is None
        else inputs["bias"].double()
    )
    expected = torch.ops.gptoss.linear(x, weight, bias)
    magnitude = torch.ops.gptoss.linear(x.abs(), weight.abs(), bias.abs())
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert torch.all((found - expected).abs() <= NATIVE_LINEAR * magnitude), inputs["weight"].dtype


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.integers(0, 70),
    depth=st.integers(1, 300),
    rows=st.integers(1, 200),
    dtype=st.sampled_from(DTYPES),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_shape(
    tokens: int, depth: int, rows: int, dtype: torch.dtype, with_bias: bool, seed: int
) -> None:
    inputs = linear_inputs(tokens, depth, rows, dtype, with_bias, seed)
    assert_is_the_definition(run_native(inputs), inputs)


@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_computes_the_definition(level: str, tmp_path: Path) -> None:
    drawn = [
        (linear_inputs(*shape, dtype, with_bias, seed=number), activations)
        for number, shape in enumerate(SHAPES)
        for dtype in DTYPES
        for with_bias in (False, True)
        for activations in ("exact", "bf16", "int8")
    ]
    cases = [
        NativeCase(model_of(inputs), inputs, {"gptoss.activations": mode}) for inputs, mode in drawn
    ]
    for (inputs, activations), [found] in zip(
        drawn, run_at_level(level, cases, tmp_path), strict=True
    ):
        assert_is_the_definition(found, inputs, activations)


def with_external_weight(inputs: Inputs, offset: int, folder: Path) -> str:
    """Write a model whose weight lies `offset` bytes into a file beside it, as in a safetensors
    file.
    """
    model = op_model("Linear", inputs, {})
    [weight] = [value for value in model.graph.input if value.name == "weight"]
    model.graph.input.remove(weight)
    initializer = model.graph.initializer.add(
        name="weight",
        data_type=weight.type.tensor_type.elem_type,
        dims=inputs["weight"].shape,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    data = inputs["weight"].view(torch.uint8).numpy().tobytes()
    (folder / f"weight-{offset}.bin").write_bytes(bytes(offset) + data)
    for key, value in {
        "location": f"weight-{offset}.bin",
        "offset": str(offset),
        "length": str(len(data)),
    }.items():
        initializer.external_data.add(key=key, value=value)
    path = folder / f"model-{offset}.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.mark.parametrize("level", cpu_levels())
def test_weights_at_odd_addresses(level: str, tmp_path: Path) -> None:
    drawn = [
        (linear_inputs(tokens, 321, 37, dtype, True), offset)
        for dtype in DTYPES
        for tokens in (1, 40)
        for offset in (1, 7, 61)
    ]
    cases = []
    for number, (inputs, offset) in enumerate(drawn):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = with_external_weight(inputs, offset, folder)
        cases.append(NativeCase(path, {**inputs, "weight": None}))
    for (inputs, _), [found] in zip(drawn, run_at_level(level, cases, tmp_path), strict=True):
        assert_is_the_definition(found, inputs)


@pytest.mark.parametrize("level", cpu_levels())
def test_nan_and_infinity_reach_their_own_row_and_column_only(level: str, tmp_path: Path) -> None:
    drawn = []
    for tokens in (3, 40):
        for dtype in DTYPES:
            inputs = linear_inputs(tokens, 53, 35, dtype, True)
            inputs["x"][1, 52] = torch.nan
            inputs["x"][2, 7] = torch.inf
            inputs["weight"][34, 3] = torch.inf
            inputs["weight"][0, 52] = -torch.inf
            drawn.append(inputs)
    cases = [NativeCase(model_of(inputs), inputs) for inputs in drawn]
    for inputs, [found] in zip(drawn, run_at_level(level, cases, tmp_path), strict=True):
        expected = torch.ops.gptoss.linear(
            inputs["x"].double(), inputs["weight"].double(), inputs["bias"].double()
        )
        special = ~expected.isfinite()
        assert special.sum() == 2 * (35 + inputs["x"].shape[0] - 2)  # two rows, two columns
        assert torch.equal(~found.isfinite(), special)
        # the two terms of a token meet an infinite weight with either sign: infinity or NaN
        if level != "amx":
            torch.testing.assert_close(
                found[special], expected[special].float(), equal_nan=True, rtol=0, atol=0
            )


@pytest.mark.parametrize("level", cpu_levels())
def test_every_float16_and_bfloat16_value_is_widened_exactly(level: str, tmp_path: Path) -> None:
    """All 65536 bit patterns times one."""
    bits = torch.from_numpy(np.arange(1 << 16, dtype=np.uint16))
    drawn = [
        {
            "x": torch.ones(tokens, 1),
            "weight": bits.clone().view(dtype).reshape(-1, 1),
            "bias": None,
        }
        for dtype in (torch.float16, torch.bfloat16)
        for tokens in (1, 9)
    ]
    cases = [NativeCase(model_of(inputs), inputs) for inputs in drawn]
    for inputs, [found] in zip(drawn, run_at_level(level, cases, tmp_path), strict=True):
        expected = inputs["weight"].float().T.expand_as(found)
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("tokens", [1, 40])
def test_the_number_of_threads_changes_nothing(tokens: int) -> None:
    inputs = linear_inputs(tokens, 500, 700, torch.bfloat16, True)
    one, two = (
        run_ort(native_session(model_of(inputs), threads=threads), inputs)[0] for threads in (1, 2)
    )
    assert torch.equal(one, two)


def bare_session(dtype: int) -> onnxruntime.InferenceSession:
    """A session whose inputs may have any rank."""
    types = {"x": onnx.TensorProto.FLOAT, "weight": dtype, "bias": onnx.TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, element, None) for name, element in types.items()]
    output = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("Linear", list(types), ["output"], domain=DOMAIN)], "g", inputs, [output]
    )
    imports = [helper.make_opsetid("", 24), helper.make_opsetid(DOMAIN, 1)]
    return native_session(
        helper.make_model(graph, opset_imports=imports, ir_version=11).SerializeToString()
    )


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2,), (3, 2), (3,)), r"Linear: input 'x': found shape \(2\), expected rank 2 \(N, K\)"),
        (
            ((1, 2, 4), (3, 4), (3,)),
            r"Linear: input 'x': found shape \(1, 2, 4\), expected rank 2 \(N, K\)",
        ),
        (
            ((2, 4), (3, 5), (3,)),
            r"Linear: input 'weight': found shape \(3, 5\), expected \(M, 4\)",
        ),
        (
            ((0, 4), (3, 5), (3,)),
            r"Linear: input 'weight': found shape \(3, 5\), expected \(M, 4\)",
        ),
        (
            ((2, 4), (3, 4, 1), (3,)),
            r"Linear: input 'weight': found shape \(3, 4, 1\), expected \(M, 4\)",
        ),
        (((2, 4), (3, 4), (4,)), r"Linear: input 'bias': found shape \(4\), expected \(3\)"),
        (((2, 4), (3, 4), (3, 1)), r"Linear: input 'bias': found shape \(3, 1\), expected \(3\)"),
        (((2, 4), (3, 4), ()), r"Linear: input 'bias': found shape \(\), expected \(3\)"),
        (((2, 4), (3, 4), (0,)), r"Linear: input 'bias': found shape \(0\), expected \(3\)"),
    ],
)
def test_wrong_shapes_are_errors(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    x, weight, bias = shapes
    for numpy_dtype, dtype in (
        (np.float32, onnx.TensorProto.FLOAT),
        (np.float16, onnx.TensorProto.FLOAT16),
    ):
        feeds = {
            "x": np.ones(x, np.float32),
            "weight": np.ones(weight, numpy_dtype),
            "bias": np.ones(bias, np.float32),
        }
        with pytest.raises(InvalidArgument, match=message):
            bare_session(dtype).run(None, feeds)


def test_an_empty_bias_without_address_is_no_omitted_one() -> None:
    session = bare_session(onnx.TensorProto.FLOAT)
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.ones((2, 4), np.float32))
    binding.bind_cpu_input("weight", np.ones((3, 4), np.float32))
    # allocated by ONNX Runtime
    empty = onnxruntime.OrtValue.ortvalue_from_shape_and_type([0], np.float32, "cpu")
    binding.bind_ortvalue_input("bias", empty)
    binding.bind_output("output")
    with pytest.raises(
        RuntimeError, match=r"Linear: input 'bias': found shape \(0\), expected \(3\)"
    ):
        session.run_with_iobinding(binding)
