"""The native MoE kernels on what other architectures ask of them, at every CPU level and in every
activation mode, against the PyTorch definition in float64.
"""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.moe_cases import DTYPES, MODES, Inputs, error_of, native_case
from support.moe_inputs import dense_inputs, laid_out, mxfp4_inputs, relative_error
from support.native_levels import NativeCase, cpu_levels, needs_native, run_at_level, run_case
from support.tolerances import NATIVE_EXPERTS, NATIVE_EXPERTS_LEVELS

pytestmark = needs_native

UNGATED = ("gelu", "gelu_tanh", "relu", "silu")
PLAIN = {"alpha": 1.0, "limit": float("inf"), "beta": 0.0}  # SwiGLU as in Mixtral and Qwen
LAYOUTS: list[dict[str, Any]] = [
    {**PLAIN, "interleaved": interleaved, "transposed": transposed}
    for interleaved, transposed in product((0, 1), (0, 1))
]
ACTIVATIONS: list[dict[str, Any]] = [
    {"activation": activation, "transposed": transposed}
    for activation, transposed in product(UNGATED, (0, 1))
]


def without_biases(inputs: Inputs) -> Inputs:
    return {**inputs, "gate_up_bias": None, "down_bias": None}


def level_cases() -> list[tuple[str, dict[str, Any], Inputs, NativeCase]]:
    """One token, a few, groups of either side of what Linear multiplies one by one."""
    cases = []
    for number, (attributes, mode) in enumerate(product((*LAYOUTS, *ACTIVATIONS), MODES)):
        for tokens, hidden, width in ((1, 320, 96), (7, 96, 160), (130, 64, 96)):
            attributes = {**attributes, "normalize": number % 2}
            packed = mxfp4_inputs(tokens, hidden, width, experts=4, seed=number)
            dense = laid_out(dense_inputs(packed, DTYPES[number % 3]), **attributes)
            inputs = without_biases(dense) if number % 4 < 2 else dense
            cases.append((mode, attributes, inputs, native_case(inputs, mode, **attributes)))
    for activation, mode in product(UNGATED, MODES):
        packed = mxfp4_inputs(9, 96, 64, experts=4, seed=1)
        inputs = {**packed, "gate_up_bias": None}
        inputs |= {name: packed[name][:, ::2] for name in ("gate_up_blocks", "gate_up_scales")}
        chosen = {"activation": activation, "normalize": 0}
        cases.append((mode, chosen, inputs, native_case(inputs, mode, **chosen)))
    return cases


def test_every_cpu_level_equals_definition_and_scalar(tmp_path: Path) -> None:
    cases = level_cases()
    outputs = {
        level: run_at_level(level, [case for *_, case in cases], tmp_path) for level in cpu_levels()
    }
    for level, found in outputs.items():
        for (mode, attributes, inputs, _), (output,), (scalar,) in zip(
            cases, found, outputs["scalar"], strict=True
        ):
            named = (
                level,
                mode,
                attributes,
                {n: x is not None and x.shape for n, x in inputs.items()},
            )
            error = error_of(output, inputs, **attributes)
            assert error < NATIVE_EXPERTS[mode], named
            # a kernel may keep more than int8 asks
            finer = mode == "int8" and error < NATIVE_EXPERTS["bf16"]
            assert finer or relative_error(output, scalar) < NATIVE_EXPERTS_LEVELS[mode], named


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 70),
    st.sampled_from(DTYPES),
    st.sampled_from((*LAYOUTS, *ACTIVATIONS)),
    st.integers(0, 1),
)
def test_any_sizes(
    tokens: int, hidden: int, width: int, dtype: torch.dtype, layout: dict[str, Any], normalize: int
) -> None:
    """Dense weights have no blocks: widths that fill no register, groups that fill no tile."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    dense = {
        "hidden": normal(tokens, hidden),
        "router_logits": normal(tokens, 2).round(),  # ties
        "gate_up": normal(2, hidden, 2 * width).to(dtype),
        "gate_up_bias": normal(2, 2 * width),
        "down": normal(2, width, hidden).to(dtype),
        "down_bias": normal(2, hidden),
    }
    attributes = {**layout, "top_k": 1, "normalize": normalize}
    inputs = laid_out(dense, **attributes)
    (found,) = run_case(native_case(inputs, **attributes))
    assert error_of(found, inputs, **attributes) < NATIVE_EXPERTS["exact"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_number_of_threads_changes_no_bit(mode: str, layout: dict[str, Any]) -> None:
    for tokens in (1, 60):
        packed = mxfp4_inputs(tokens, 160, 96, experts=4, seed=6)
        inputs = laid_out(dense_inputs(packed, torch.bfloat16), **layout)
        one, three = (
            run_case(native_case(inputs, mode, threads=threads, **layout))[0] for threads in (1, 3)
        )
        assert torch.equal(one, three)
