"""The native MoE kernels on gpt-oss's calls against the PyTorch definition in float64, at every CPU
level and in every activation mode.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.moe_cases import DTYPES, MODES, Inputs, definition, error_of, native_case
from support.moe_inputs import dense_inputs, mxfp4_inputs, relative_error
from support.native_levels import (
    LIBRARY,
    NativeCase,
    cpu_levels,
    native_session,
    needs_native,
    run_at_level,
    run_case,
)
from support.op_models import run_ort
from support.tolerances import NATIVE_EXPERTS, NATIVE_EXPERTS_LEVELS

pytestmark = needs_native


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 11),
    st.integers(1, 11),
    st.integers(1, 8),
    st.sampled_from(MODES),
    st.data(),
)
def test_mxfp4_equals_definition(
    tokens: int, hidden: int, width: int, experts: int, mode: str, data: st.DataObject
) -> None:
    """Hidden size and width 32 … 352: rows of every number of blocks modulo what a register
    holds.
    """
    inputs = mxfp4_inputs(
        tokens, 32 * hidden, 32 * width, experts, data.draw(st.integers(0, 2**31))
    )
    if data.draw(st.booleans()):
        inputs["router_logits"] = inputs["router_logits"].round()  # ties
    attributes = {"top_k": data.draw(st.integers(1, experts))}
    (found,) = run_case(native_case(inputs, mode, **attributes))
    assert error_of(found, inputs, **attributes) < NATIVE_EXPERTS[mode]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(9, 90), st.integers(1, 90), st.sampled_from(DTYPES))
def test_dense_equals_definition(tokens: int, hidden: int, width: int, dtype: torch.dtype) -> None:
    """Any sizes, since dense weights have no blocks."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = {
        "hidden": normal(tokens, hidden),
        "router_logits": normal(tokens, 4),
        "gate_up": normal(4, hidden, 2 * width).to(dtype),
        "gate_up_bias": normal(4, 2 * width),
        "down": normal(4, width, hidden).to(dtype),
        "down_bias": normal(4, hidden),
    }
    (found,) = run_case(native_case(inputs))
    assert error_of(found, inputs) < NATIVE_EXPERTS["exact"]


def level_cases() -> list[tuple[str, NativeCase, Inputs]]:
    """Shapes on both sides of every kernel's blocking: one token, a few, a tile, more; odd numbers
    of blocks.
    """
    cases = []
    shapes = [
        (1, 2880, 96),
        (1, 96, 2880),
        (3, 160, 32),
        (4, 32, 416),
        (6, 512, 544),
        (9, 352, 64),
        (21, 128, 224),
        (70, 416, 160),
    ]
    for mode in MODES:
        for seed, (tokens, hidden, width) in enumerate(shapes):
            inputs = mxfp4_inputs(tokens, hidden, width, experts=5, seed=seed)
            cases.append((mode, native_case(inputs, mode), inputs))
        for dtype in DTYPES:
            inputs = dense_inputs(mxfp4_inputs(11, 96, 320, experts=3, seed=9), dtype)
            cases.append((mode, native_case(inputs, mode), inputs))
    return cases


def test_every_cpu_level_equals_definition_and_scalar(tmp_path: Path) -> None:
    cases = level_cases()
    outputs = {
        level: run_at_level(level, [case for _, case, _ in cases], tmp_path)
        for level in cpu_levels()
    }
    for level, found in outputs.items():
        for (mode, case, inputs), (output,), (scalar,) in zip(
            cases, found, outputs["scalar"], strict=True
        ):
            shape = (level, mode, tuple(inputs["hidden"].shape), tuple(case.inputs))
            error = error_of(output, inputs)
            assert error < NATIVE_EXPERTS[mode], shape
            # a kernel may keep more than int8 asks
            finer = mode == "int8" and error < NATIVE_EXPERTS["bf16"]
            assert finer or relative_error(output, scalar) < NATIVE_EXPERTS_LEVELS[mode], shape


@pytest.mark.parametrize("mode", MODES)
def test_every_scale_byte_means_what_the_format_says(mode: str, tmp_path: Path) -> None:
    """Small scales with huge activations, so that 2^-127 counts, large ones with tiny activations,
    and one of zeros; 255 is NaN in its own row alone.
    """
    cases = []
    for tokens in (1, 3, 40):
        inputs = mxfp4_inputs(tokens, 160, 64, experts=2, seed=tokens)
        inputs["hidden"] *= 1e30
        inputs["gate_up_bias"].zero_()
        inputs["down_bias"].zero_()
        inputs["gate_up_scales"].copy_(
            torch.arange(5, dtype=torch.uint8).expand_as(inputs["gate_up_scales"])
        )
        cases.append(inputs)
        inputs = _copied(mxfp4_inputs(tokens, 160, 64, 2, seed=tokens))
        inputs["hidden"] *= 1e-28
        inputs["gate_up_scales"][:, ::3, 1] = 223
        cases.append(inputs)
        inputs = _copied(mxfp4_inputs(tokens, 160, 64, 2, seed=tokens))
        inputs["down_scales"][:, 7, 1] = 255
        inputs["down_scales"][:, 9, 0] = 0
        inputs["gate_up_scales"][:, 5, 2] = 0
        inputs["gate_up_blocks"][:, 5, 2] = 0
        cases.append(inputs)
    for level in cpu_levels():
        found = run_at_level(level, [native_case(inputs, mode) for inputs in cases], tmp_path)
        for inputs, (output,) in zip(cases, found, strict=True):
            expected = definition(inputs)
            assert torch.equal(output.isnan(), expected.isnan()), level
            assert (
                relative_error(output.double().nan_to_num(), expected.nan_to_num())
                < NATIVE_EXPERTS[mode]
            ), level


@pytest.mark.parametrize("mode", MODES)
def test_a_token_gets_the_same_bits_beside_one_of_another_size(mode: str, tmp_path: Path) -> None:
    """Kernels multiply scales in a faster way where all of them allow it: a token whose scale does
    not, or a NaN, must not show in the others of its tile.
    """
    inputs = mxfp4_inputs(40, 160, 64, experts=2, seed=12)
    beside = _copied(inputs)
    beside["hidden"][3] *= 1e-25
    beside["hidden"][17] *= 1e30
    beside["hidden"][29, 40] = float("nan")
    others = [row for row in range(40) if row not in (3, 17, 29)]
    for level in cpu_levels():
        cases = [native_case(some, mode) for some in (inputs, beside)]
        (alone,), (found,) = run_at_level(level, cases, tmp_path)
        assert torch.equal(found[others], alone[others]), level
        assert found[29].isnan().all(), level


def _copied(inputs: Inputs) -> Inputs:
    return {name: tensor.clone() for name, tensor in inputs.items()}


@pytest.mark.parametrize("mode", MODES)
def test_number_of_threads_changes_no_bit(mode: str) -> None:
    for tokens in (1, 33):
        inputs = mxfp4_inputs(tokens, 160, 96, experts=4, seed=6)
        one, three = (run_case(native_case(inputs, mode, threads=threads))[0] for threads in (1, 3))
        assert torch.equal(one, three)


@pytest.mark.parametrize("mode", MODES)
def test_a_few_tokens_get_the_bits_that_each_gets_alone(mode: str, tmp_path: Path) -> None:
    """Four tokens, whose experts meet one to four of them: what other rows a server decodes beside
    an answer must not show in it.
    """
    inputs = mxfp4_inputs(4, 608, 352, experts=6, seed=8)
    inputs["router_logits"][:, 2] = 100  # an expert of all
    alone = [
        {
            name: tensor[row : row + 1] if name in ("hidden", "router_logits") else tensor
            for name, tensor in inputs.items()
        }
        for row in range(4)
    ]
    for level in cpu_levels():
        cases = [native_case(some, mode) for some in (inputs, *alone)]
        (together,), *others = run_at_level(level, cases, tmp_path)
        assert torch.equal(together, torch.cat([output for (output,) in others])), level


@pytest.mark.parametrize("dense", [False, True])
def test_no_tokens_give_no_rows(dense: bool) -> None:
    inputs = mxfp4_inputs(0, 32, 32, experts=3, seed=1)
    (found,) = run_case(native_case(dense_inputs(inputs, torch.bfloat16) if dense else inputs))
    assert found.shape == (0, 32)


def test_an_expert_nobody_chose_is_not_read() -> None:
    inputs = mxfp4_inputs(6, 64, 32, experts=4, seed=2)
    inputs["router_logits"][:, 1] = -100
    inputs["gate_up_scales"][1] = 255
    inputs["down_scales"][1] = 255
    (found,) = run_case(native_case(inputs))
    assert error_of(found, inputs) < NATIVE_EXPERTS["exact"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_activation_that_is_no_number_shows_in_its_token_alone(mode: str, value: float) -> None:
    inputs = mxfp4_inputs(20, 64, 32, experts=2, seed=5)
    (clean,) = run_case(native_case(inputs, mode))
    inputs["hidden"][3, 40] = value
    (found,) = run_case(native_case(inputs, mode))
    assert not found[3].isfinite().any()
    others = [token for token in range(20) if token != 3]
    assert torch.equal(found[others], clean[others])


def test_unknown_activation_mode_is_refused_at_registration() -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("gptoss.activations", "fp4")
    with pytest.raises(
        Exception, match=r"'gptoss\.activations': found 'fp4', expected one of exact, bf16, int8"
    ):
        options.register_custom_ops_library(str(LIBRARY))


def test_sessions_of_different_modes_live_side_by_side() -> None:
    inputs = mxfp4_inputs(2, 320, 64, experts=2, seed=7)
    sessions = {
        mode: native_session(native_case(inputs).model, {"gptoss.activations": mode})
        for mode in MODES
    }
    errors = [error_of(run_ort(sessions[mode], inputs)[0], inputs) for mode in MODES]
    assert errors == sorted(errors)
    assert np.all(np.array(errors) < [NATIVE_EXPERTS[mode] for mode in MODES])
