"""What the native SinkAttention refuses: inputs, lengths and attributes without sense."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from support.attention_cases import Inputs, Options, cached_call
from support.native_attention import assert_output, define, layer, model_of
from support.native_levels import native_session, needs_native
from support.op_models import run_ort
from support.tolerances import NATIVE_ATTENTION

pytestmark = needs_native
InvalidArgument = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument
RuntimeException = onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException


def as_numpy(inputs: Inputs) -> dict[str, np.ndarray]:
    """Return feeds for `session.run`, which unlike an IO binding raises errors by their kind."""
    return {name: tensor.numpy() for name, tensor in inputs.items() if tensor is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"query": torch.zeros(2, 3, 11)},
            r"'query': found shape \(2, 3, 11\), expected \(2, 3, 12\) = \(B, S, H·D\)",
        ),
        (
            {"query": torch.zeros(2, 12, 1)},
            r"'past_key': found head dim 2 .* expected an even number",
        ),
        ({"key": torch.zeros(2, 4, 4)}, r"'key': found shape \(2, 4, 4\), expected \(2, 3, 4\)"),
        (
            {"value": torch.zeros(1, 3, 4)},
            r"'value': found shape \(1, 3, 4\), expected \(2, 3, 4\)",
        ),
        (
            {"past_key": torch.zeros(2, 1, 9, 2)},
            r"'past_key': found shape \(2, 1, 9, 2\), expected \(2, 2, 9, 2\)",
        ),
        ({"past_key": torch.zeros(2, 2, 9, 3)}, r"'past_key': found head dim 3"),
        ({"past_key": torch.zeros(2, 2, 9, 0)}, r"'past_key': found head dim 0"),
        (
            {"past_value": torch.zeros(2, 2, 8, 2)},
            r"'past_value': found shape \(2, 2, 8, 2\), expected \(2, 2, 9, 2\)",
        ),
        (
            {"past_lengths": torch.zeros(3, dtype=torch.int64)},
            r"'past_lengths': found shape \(3\), expected \(2\)",
        ),
        (
            {"past_lengths": torch.tensor([0, -1])},
            r"'past_lengths': found -1 in row 1, expected 0 to 2\^62",
        ),
        (
            {"past_lengths": torch.tensor([2**63 - 1, 0])},
            r"'past_lengths': found 9223372036854775807 in row 0",
        ),
        (
            {"past_lengths": torch.tensor([6, 7])},
            r"'past_lengths': found 7 cached tokens in row 1, which with 3 new ones need 10 slots "
            r"\(window 0\), "
            r"expected a need of at most 9, the capacity of past_key",
        ),
        (
            {"new_lengths": torch.tensor([0, 4])},
            r"'new_lengths': found 4 in row 1, expected 0 to 3",
        ),
        (
            {"new_lengths": torch.tensor([-1, 1])},
            r"'new_lengths': found -1 in row 0, expected 0 to 3",
        ),
        ({"sinks": torch.zeros(5)}, r"'sinks': found shape \(5\), expected \(6\) = \(H\)"),
        (
            {"cos": torch.zeros(2, 3, 2)},
            r"'cos': found shape \(2, 3, 2\), expected \(2, 3, 1\) = \(B, S, R/2\) with R/2 from 1 "
            r"to D/2 = 1",
        ),
        ({"cos": torch.zeros(2, 3, 0)}, r"'cos': found shape \(2, 3, 0\), expected \(2, 3, 1\)"),
        ({"sin": torch.zeros(2, 2, 1)}, r"'sin': found shape \(2, 2, 1\), expected \(2, 3, 1\)"),
    ],
)
def test_bad_inputs_are_refused(change: Inputs, message: str) -> None:
    case = layer(2, 3, 2, 0, (3, 3), 3)
    inputs = cached_call(case, (0, 0), 9, torch.float32)
    session = native_session(model_of(case, inputs))
    with pytest.raises(InvalidArgument, match=rf"SinkAttention: input {message}"):
        session.run(None, as_numpy(inputs | change))


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (Options(), {"sin": None}, "'sin': found no tensor, expected one with cos and only then"),
        (Options(), {"cos": None}, "'sin': found a tensor, expected one with cos and only then"),
        (
            Options(kept=2),
            {"sink_cos": None},
            "'sink_cos': found no tensor, expected one with cos and sink_tokens and only then",
        ),
        (
            Options(),
            {"sink_sin": torch.zeros(1, 3, 1)},
            "'sink_sin': found a tensor, expected one with cos and sink_tokens and only then",
        ),
        (
            Options(kept=2),
            {"sink_cos": torch.zeros(1, 2, 1)},
            r"'sink_cos': found shape \(1, 2, 1\), expected \(1, 3, 1\)",
        ),
        (
            Options(slopes=True),
            {"alibi_slopes": torch.zeros(5)},
            r"'alibi_slopes': found shape \(5\), expected \(6\) = \(H\)",
        ),
        (
            Options(distances=4),
            {"distance_bias": torch.zeros(4)},
            r"'distance_bias': found shape \(4\), expected \(6, 1\) = \(H, N\) with N at least 1",
        ),
        (
            Options(distances=4),
            {"distance_bias": torch.zeros(6, 0)},
            r"'distance_bias': found shape \(6, 0\), expected \(6, 1\)",
        ),
    ],
)
def test_bad_optional_inputs_are_refused(
    options: Options, change: dict[str, torch.Tensor | None], message: str
) -> None:
    case = layer(2, 3, 2, 5, (3,), 3, options)
    inputs = cached_call(case, (0,), 9, torch.float32) | change
    session = native_session(model_of(case, inputs))
    with pytest.raises(InvalidArgument, match=rf"SinkAttention: input {message}"):
        session.run(None, as_numpy(inputs))


@pytest.mark.parametrize(
    ("window", "past", "capacity", "fits"),
    [(4, 0, 6, True), (4, 0, 5, False), (4, 100, 9, True), (4, 100, 8, False)],
)
def test_window_layers_need_window_and_chunk(
    window: int, past: int, capacity: int, fits: bool
) -> None:
    case = layer(1, 2, 2, window, (6,), 6)
    inputs = cached_call(case, (past,), capacity, torch.float32)
    session = native_session(model_of(case, inputs))
    if fits:
        assert_output(
            run_ort(session, inputs)[0],
            define(case, inputs)[0],
            inputs["new_lengths"],
            NATIVE_ATTENTION,
        )
    else:
        with pytest.raises(InvalidArgument, match=rf"need {min(past + 6, 9)} slots \(window 4\)"):
            session.run(None, as_numpy(inputs))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_heads", 5, "found 5, expected a multiple of kv_num_heads = 2"),
        ("num_heads", 0, "found 0, expected 1 to"),
        ("kv_num_heads", -2, "found -2, expected 1 to"),
        ("window", -1, "found -1, expected 0 to"),
        ("window", 2**40, "found 1099511627776, expected 0 to"),
        ("scale", float("inf"), "found inf, expected a finite number"),
        ("interleaved", 2, "found 2, expected 0 or 1"),
        ("sink_tokens", -1, "found -1, expected 0, or less than window = 4"),
        ("sink_tokens", 4, "found 4, expected 0, or less than window = 4"),
        ("sink_bias", float("nan"), "found nan, expected a finite number"),
    ],
)
def test_bad_attributes_are_refused(name: str, value: object, message: str) -> None:
    case = layer(2, 3, 2, 4, (3,), 3, Options(interleaved=1, kept=2, kept_bias=0.5))
    model = onnx.load_from_string(model_of(case, cached_call(case, (0,), 9, torch.float32)))
    (attribute,) = (
        attribute for attribute in model.graph.node[0].attribute if attribute.name == name
    )
    attribute.CopyFrom(onnx.helper.make_attribute(name, value))
    with pytest.raises(RuntimeException, match=rf"SinkAttention: attribute '{name}': {message}"):
        native_session(model.SerializeToString())


def test_an_optional_attribute_of_another_type_is_refused() -> None:
    """It is not taken for one that is left out."""
    case = layer(2, 3, 2, 4, (3,), 3)
    model = onnx.load_from_string(model_of(case, cached_call(case, (0,), 9, torch.float32)))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("sink_tokens", 2.0))
    with pytest.raises(RuntimeException, match=r"'sink_tokens': found the float 2\.0"):
        native_session(model.SerializeToString())
