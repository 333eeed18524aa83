"""The native SinkAttention on layers unlike gpt-oss's at every CPU level: no sinks, no or partial
rotation, biases by distance, kept first tokens.
"""

import math
from pathlib import Path

import pytest
import torch

from support.attention_cases import Case, Inputs, Options, cached_call
from support.native_attention import assert_output, define, defined_calls, layer, model_of
from support.native_levels import NativeCase, cpu_levels, native_session, needs_native, run_at_level
from support.op_models import op_model, run_ort, session_of
from support.tolerances import NATIVE_ATTENTION, NATIVE_ATTENTION_BF16_PRODUCTS

pytestmark = needs_native
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LLAMA, BLOOM = Options(sinks=False), Options(sinks=False, rotary=0, slopes=True)
T5 = Options(sinks=False, rotary=0, distances=40)
EVERYTHING = Options(rotary=2, interleaved=1, slopes=True, distances=3, kept=2, kept_bias=0.4)

# (layer and call, cached tokens a row, capacity): pieces merged, blocks cut by the ring's end, kept
# tokens alone, few and nearly all, tiles of odd size.
CACHED = (
    (layer(2, 4, 64, 0, (1,), 1, LLAMA), (2999,), 3000),
    (layer(2, 3, 32, 0, (7, 3), 8, Options(rotary=8, interleaved=1)), (2990, 1500), 3000),
    (layer(1, 8, 64, 0, (100,), 100, BLOOM), (1400,), 1500),
    (layer(2, 2, 16, 0, (1,), 1, BLOOM), (2999,), 3000),
    (layer(1, 5, 10, 0, (50,), 50, T5), (100,), 150),
    (layer(2, 7, 6, 9, (3, 9, 0), 9, EVERYTHING), (0, 61, 70), 80),
    (layer(2, 8, 64, 128, (1,), 1, Options(sinks=False, kept=4)), (5000,), 130),
    (layer(2, 8, 64, 128, (200, 3), 256, Options(kept=4, kept_bias=1.5)), (5000, 7), 390),
    (layer(2, 6, 80, 3, (60, 50), 70, Options(sinks=False, rotary=13, kept=2)), (0, 9), 72),
    (layer(3, 2, 2, 40, (20,), 20, Options(sinks=False, kept=39, kept_bias=-3.0)), (1000,), 59),
    (layer(2, 4, 32, 3000, (40, 2), 40, Options(slopes=True, kept=64)), (5000, 1), 3050),
    (layer(8, 8, 64, 0, (2, 1), 2, T5), (700, 20), 705),
)


def compare(
    level: str, dtype: torch.dtype, config: dict[str, str], folder: Path, tolerance: float
) -> None:
    calls = defined_calls(CACHED, dtype)
    natives = [NativeCase(model_of(case, inputs), inputs, config) for case, inputs, _ in calls]
    outputs = run_at_level(level, natives, folder)
    for (_, inputs, expected), found in zip(calls, outputs, strict=True):
        assert_output(found[0], expected, inputs["new_lengths"], tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_equals_definition(level: str, dtype: torch.dtype, tmp_path: Path) -> None:
    compare(level, dtype, {}, tmp_path, NATIVE_ATTENTION)


@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_with_narrow_activations(level: str, tmp_path: Path) -> None:
    config = {"gptoss.activations": "bf16"}
    compare(level, torch.bfloat16, config, tmp_path, NATIVE_ATTENTION_BF16_PRODUCTS)


def blind(case: Case, past: tuple[int, ...], capacity: int) -> Inputs:
    """Return a call whose first head sees nothing: it has a bias of −∞ at every distance."""
    inputs = cached_call(case, past, capacity, torch.float32)
    inputs["distance_bias"][0] = -torch.inf
    return inputs


BLIND = (
    (layer(2, 3, 8, 40, (30, 2), 31, T5), (700, 0), 75),
    (layer(2, 3, 8, 40, (30, 2), 31, Options(sinks=False, distances=2, kept=3)), (700, 0), 75),
    (layer(2, 3, 8, 0, (1,), 1, T5), (9,), 10),  # every slot is visible
)


@pytest.mark.parametrize(("case", "past", "capacity"), BLIND)
def test_a_query_that_sees_nothing_gives_zeros(
    case: Case, past: tuple[int, ...], capacity: int
) -> None:
    inputs = blind(case, past, capacity)
    model = op_model("SinkAttention", inputs, case.attributes)
    outputs = [
        define(case, inputs)[0],
        run_ort(session_of(model), inputs)[0],
        run_ort(native_session(model_of(case, inputs)), inputs)[0],
    ]
    for output in outputs:
        assert (output[..., :8] == 0).all()
        assert_output(output, outputs[0], inputs["new_lengths"], NATIVE_ATTENTION)


@pytest.mark.parametrize("level", cpu_levels())
def test_a_query_that_sees_nothing_gives_zeros_at_every_level(level: str, tmp_path: Path) -> None:
    calls = [(case, blind(case, past, capacity)) for case, past, capacity in BLIND]
    natives = [NativeCase(model_of(case, inputs), inputs) for case, inputs in calls]
    for (case, inputs), found in zip(calls, run_at_level(level, natives, tmp_path), strict=True):
        expected = define(case, inputs)[0]
        assert_output(found[0], expected, inputs["new_lengths"], NATIVE_ATTENTION)


@pytest.mark.parametrize("bias", [3e38, -3e38])
def test_extreme_bias_of_kept_tokens(bias: float) -> None:
    """Kept tokens take everything or nothing; the kernel scales the bias, which must stay finite.

    The definition adds it to the scores, which are lost in it: a bias of 500 weighs as much, and
    leaves them their digits in float64.
    """
    outputs = []
    for size in (bias, math.copysign(500.0, bias)):
        options = Options(sinks=False, kept=3, kept_bias=size)
        case = layer(2, 3, 8, 40, (30, 2), 31, options)
        inputs = cached_call(case, (700, 1), 75, torch.float32)
        outputs.append(run_ort(native_session(model_of(case, inputs)), inputs)[0])
    wide = {
        name: x.double() if x is not None and x.is_floating_point() else x
        for name, x in inputs.items()
    }
    expected = define(case, wide)[0].float()
    for found in outputs:
        assert_output(found, expected, inputs["new_lengths"], NATIVE_ATTENTION)
