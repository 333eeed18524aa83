"""SinkAttention: the PyTorch definition against a plain history, and the portable body against the
definition.
"""

import pytest
import torch
from hypothesis import given, settings

from gptoss_onnx.errors import InputError
from support.attention_cases import (
    Case,
    Inputs,
    call_inputs,
    cases,
    real_tokens,
    run_definition,
)
from support.op_models import op_model, run_ort, run_reference, session_of
from support.plain_attention import PlainHistory
from support.tolerances import BODY_BFLOAT16_CACHE, BODY_FLOAT16_CACHE, BODY_FLOAT32

TOLERANCES = {
    torch.float32: BODY_FLOAT32,
    torch.float16: BODY_FLOAT16_CACHE,
    torch.bfloat16: BODY_BFLOAT16_CACHE,
}


@settings(max_examples=100, deadline=None)
@given(cases())
def test_definition_equals_plain_history(case: Case) -> None:
    """Rows are ragged, rings wrap, and rows are rewound again and again down to start − reserve."""
    history = PlainHistory(case)
    for inputs, output, new in run_definition(case, torch.float32):
        real = real_tokens(output.shape[1], torch.tensor(new))
        expected = history.attend(inputs)
        torch.testing.assert_close(output[real], expected, atol=BODY_FLOAT32, rtol=0)
        assert torch.isfinite(output).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_body_equals_definition_in_ort(dtype: torch.dtype) -> None:
    @settings(max_examples=25, deadline=None)
    @given(cases())
    def check(case: Case) -> None:
        session = None
        for inputs, expected, new in run_definition(case, dtype):
            session = session or session_of(op_model("SinkAttention", inputs, case.attributes))
            _compare(case, inputs, run_ort(session, inputs), expected, new, TOLERANCES[dtype])

    check()


@settings(max_examples=15, deadline=None)
@given(cases())
def test_body_equals_definition_in_onnx_reference(case: Case) -> None:
    model = None
    for inputs, expected, new in run_definition(case, torch.float32):
        model = model or op_model("SinkAttention", inputs, case.attributes)
        _compare(case, inputs, run_reference(model, inputs), expected, new, BODY_FLOAT32)


@pytest.mark.parametrize(
    ("window", "past", "new", "capacity"),
    [(0, 6, 3, 8), (4, 0, 6, 5), (4, 100, 6, 8), (1, 3, 5, 4)],
)
def test_definition_refuses_a_cache_that_is_too_small(
    window: int, past: int, new: int, capacity: int
) -> None:
    case = Case(1, 1, 1, window, 0, (((new,), new),), ((0,),), 0)
    inputs = call_inputs(case, torch.Generator().manual_seed(0), torch.tensor([past]), (new,), new)
    inputs |= {name: torch.zeros(1, 1, capacity, 2) for name in ("past_key", "past_value")}
    with pytest.raises(
        InputError, match=rf"row 0 has {past} cached tokens and {new} new ones .* holds {capacity}"
    ):
        torch.ops.gptoss.sink_attention(*inputs.values(), *case.attributes.values())


def test_smallest_allowed_ring_is_exact() -> None:
    """C = window + S − 1 with a chunk longer than the window: the bound is tight and still
    enough.
    """
    case = Case(
        2, 2, 2, window=3, reserve=0, calls=(((7, 2), 7),) * 4, rewinds=((0, 0),) * 4, seed=5
    )
    test_definition_equals_plain_history.hypothesis.inner_test(case)


def _compare(
    case: Case,
    inputs: Inputs,
    found: list[torch.Tensor],
    output: torch.Tensor,
    new: tuple[int, ...],
    tolerance: float,
) -> None:
    real = real_tokens(output.shape[1], torch.tensor(new))  # padding means nothing
    torch.testing.assert_close(found[0][real], output[real], atol=tolerance, rtol=0)
    assert torch.isfinite(found[0]).all()
    _, *present = torch.ops.gptoss.sink_attention(*inputs.values(), *case.attributes.values())
    for one, other in zip(found[1:], present, strict=True):
        torch.testing.assert_close(one.float(), other.float(), atol=tolerance, rtol=0)
