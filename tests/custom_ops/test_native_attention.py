"""The native SinkAttention against its definition: rings, ragged rows, caches in place, every CPU
level.
"""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from gptoss_onnx.custom_ops.cache_slots import slots_of
from support.attention_cases import (
    Case,
    Inputs,
    cached_call,
    cases,
    real_tokens,
    run_definition,
)
from support.native_attention import assert_output, define, defined_calls, layer, model_of
from support.native_levels import NativeCase, cpu_levels, native_session, needs_native, run_at_level
from support.op_models import ort_value, run_ort
from support.tolerances import (
    BODY_BFLOAT16_CACHE,
    BODY_FLOAT16_CACHE,
    BODY_FLOAT32,
    NATIVE_ATTENTION,
    NATIVE_ATTENTION_BF16_PRODUCTS,
)

pytestmark = needs_native

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCES = {
    torch.float32: BODY_FLOAT32,
    torch.float16: BODY_FLOAT16_CACHE,
    torch.bfloat16: BODY_BFLOAT16_CACHE,
}
CACHES = ("past_key", "past_value")


# (layer and call, cached tokens a row, capacity): pieces merged, blocks cut by the ring's end,
# tiles of odd size.
CACHED = (
    (layer(2, 4, 64, 0, (1,), 1), (2999,), 3000),
    (layer(2, 3, 32, 0, (7, 3), 8), (2990, 1500), 3000),
    (layer(1, 8, 64, 0, (100,), 100), (1400,), 1500),
    (layer(1, 5, 10, 0, (50,), 50), (100,), 150),
    (layer(2, 7, 6, 0, (3, 9, 0), 9), (0, 61, 70), 80),
    (layer(2, 8, 64, 128, (1,), 1), (5000,), 130),
    (layer(2, 8, 64, 128, (200, 3), 256), (5000, 7), 390),
    (layer(2, 6, 80, 3, (60, 50), 70), (0, 9), 72),
    (layer(3, 2, 2, 40, (20,), 20), (1000,), 59),
    (layer(8, 8, 64, 0, (2, 1), 2), (700, 20), 705),
)


def slots_without_padding(case: Case, inputs: Inputs) -> torch.Tensor:
    """Return the slots that no padding token of the call falls into, bool (B, C): padding need not
    be written.
    """
    columns, capacity = inputs["query"].shape[1], inputs["past_key"].shape[2]
    positions = inputs["past_lengths"].unsqueeze(1) + torch.arange(columns)
    slots = slots_of(positions, capacity, case.options.kept)  # (B, S)
    padding = ~real_tokens(columns, inputs["new_lengths"])
    return torch.ones(len(slots), capacity, dtype=torch.bool).scatter(1, slots, ~padding)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernel_equals_definition(dtype: torch.dtype) -> None:
    @settings(max_examples=60, deadline=None)
    @given(cases(groups=8, halves=5))
    def check(case: Case) -> None:
        session = None
        for inputs, expected, _ in run_definition(case, dtype):
            session = session or native_session(model_of(case, inputs))
            output, *present = run_ort(session, inputs)
            assert_output(output, expected, inputs["new_lengths"], TOLERANCES[dtype])
            kept = slots_without_padding(case, inputs)
            for found, defined in zip(present, define(case, inputs)[1:], strict=True):
                found, defined = (x.transpose(1, 2)[kept].float() for x in (found, defined))
                torch.testing.assert_close(found, defined, atol=TOLERANCES[dtype], rtol=0)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_cache_in_place_is_carried_along(dtype: torch.dtype) -> None:
    """Past and present are one buffer, full of NaN at first: no slot is read that no token of the
    row wrote.
    """

    @settings(max_examples=40, deadline=None)
    @given(cases(groups=8, halves=5))
    def check(case: Case) -> None:
        session = None
        for inputs, expected, _ in run_definition(case, dtype):
            if session is None:
                session = native_session(model_of(case, inputs))
                buffers = {
                    name: ort_value(torch.full_like(inputs[name], torch.nan)) for name in CACHES
                }
            values = {
                name: ort_value(tensor) for name, tensor in inputs.items() if tensor is not None
            } | buffers
            binding = session.io_binding()
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            binding.bind_output("output")
            for name in CACHES:
                binding.bind_ortvalue_output(name.replace("past", "present"), buffers[name])
            session.run_with_iobinding(binding)
            output = torch.from_numpy(binding.get_outputs()[0].numpy().copy())
            assert_output(output, expected, inputs["new_lengths"], TOLERANCES[dtype])

    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_equals_definition(level: str, dtype: torch.dtype, tmp_path: Path) -> None:
    calls = defined_calls(CACHED, dtype)
    natives = [
        NativeCase(model_of(case, inputs), inputs, threads=1 + i % 3)
        for i, (case, inputs, _) in enumerate(calls)
    ]
    outputs = run_at_level(level, natives, tmp_path)
    for (_, inputs, expected), found in zip(calls, outputs, strict=True):
        assert_output(found[0], expected, inputs["new_lengths"], NATIVE_ATTENTION)


@pytest.mark.parametrize("activations", ["bf16", "int8"])
@pytest.mark.parametrize("level", cpu_levels())
def test_every_level_with_narrow_activations(level: str, activations: str, tmp_path: Path) -> None:
    calls = defined_calls(CACHED, torch.bfloat16)
    config = {"gptoss.activations": activations}
    natives = [NativeCase(model_of(case, inputs), inputs, config) for case, inputs, _ in calls]
    outputs = run_at_level(level, natives, tmp_path)
    for (_, inputs, expected), found in zip(calls, outputs, strict=True):
        assert_output(found[0], expected, inputs["new_lengths"], NATIVE_ATTENTION_BF16_PRODUCTS)


@pytest.mark.parametrize("window", [0, 128])
@pytest.mark.parametrize("dtype", DTYPES)
def test_real_head_shape(dtype: torch.dtype, window: int) -> None:
    """64 query heads on 8 kv heads of 64: prefill of 256 after 300 tokens, then decode."""
    for new, past in ((256, 300), (1, 600)):
        case = layer(8, 8, 64, window, (new,), new)
        inputs = cached_call(case, (past,), past + new if window == 0 else window + new - 1, dtype)
        found = run_ort(native_session(model_of(case, inputs)), inputs)
        assert_output(found[0], define(case, inputs)[0], inputs["new_lengths"], NATIVE_ATTENTION)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads: int) -> None:
    case, past, capacity = CACHED[0]
    inputs = cached_call(case, past, capacity, torch.float32)
    one, other = (
        run_ort(native_session(model_of(case, inputs), threads=n), inputs) for n in (1, threads)
    )
    for found, expected in zip(other, one, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("poison", ["query", "key", "value", "past_value", "cos"])
def test_nan_stays_in_its_row(poison: str) -> None:
    case = layer(2, 3, 6, 4, (3, 2, 3), 3)
    inputs = cached_call(case, (9, 9, 9), 6, torch.float32)
    clean = run_ort(native_session(model_of(case, inputs)), inputs)[0]
    inputs[poison][1] = torch.nan
    found = run_ort(native_session(model_of(case, inputs)), inputs)[0]
    assert torch.equal(found[[0, 2]], clean[[0, 2]])
    assert found[1, :2].isnan().any()


@pytest.mark.parametrize("sink", [3.4e38, -3.4e38, -torch.inf])
def test_extreme_sinks(sink: float) -> None:
    """A sink takes everything or nothing; the kernel scales it, which must not make it infinite."""
    case, past, capacity = CACHED[0]
    inputs = cached_call(case, past, capacity, torch.float32)
    inputs["sinks"][0] = sink
    found = run_ort(native_session(model_of(case, inputs)), inputs)[0]
    assert_output(found, define(case, inputs)[0], inputs["new_lengths"], NATIVE_ATTENTION)


@pytest.mark.parametrize("batch", [0, 2])
@pytest.mark.parametrize("columns", [0, 3])
def test_no_tokens(batch: int, columns: int) -> None:
    case = layer(2, 2, 4, 0, (0, 0), 3)
    inputs = cached_call(case, (1, 1), 8, torch.float32)
    inputs |= {name: inputs[name][:batch] for name in (*CACHES, "past_lengths", "new_lengths")}
    inputs |= {
        name: inputs[name][:batch, :columns] for name in ("query", "key", "value", "cos", "sin")
    }
    output, *present = run_ort(native_session(model_of(case, inputs)), inputs)
    assert torch.equal(output, torch.zeros_like(inputs["query"]))
    for found, name in zip(present, CACHES, strict=True):
        assert torch.equal(found, inputs[name])
