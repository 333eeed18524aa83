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
    angles_of,
    call_inputs,
    cases,
    real_tokens,
    run_definition,
)
from support.op_models import op_model, run_ort, run_reference, session_of
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
    histories: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in range(case.batch)]
    for inputs, output, new in run_definition(case, torch.float32):
        for row, past in enumerate(inputs["past_lengths"].tolist()):
            del histories[row][past:]
            for step in range(new[row]):
                key, value = (inputs[name][row, step] for name in ("key", "value"))
                heads = (case.kv_heads, -1)
                histories[row].append((key.view(heads), value.view(heads)))
                expected = _attend(case, inputs, histories[row], row, step)
                torch.testing.assert_close(output[row, step], expected, atol=BODY_FLOAT32, rtol=0)
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


def _rotated(case: Case, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rotate (n, heads, D) to places (n) as complex numbers, a second way to write RoPE."""
    pairs, interleaved = case.pairs, case.options.interleaved
    numbers = range(pairs)
    first = [2 * i if interleaved else i for i in numbers]
    second = [2 * i + 1 if interleaved else i + pairs for i in numbers]
    angles = angles_of(case, places).unsqueeze(1)  # (n, 1, R/2)
    turn = torch.complex(angles.cos(), angles.sin())
    turned = torch.complex(x[..., first], x[..., second]) * turn
    rotated = x.clone()
    rotated[..., first], rotated[..., second] = turned.real, turned.imag
    return rotated


def _attend(
    case: Case,
    inputs: Inputs,
    history: list[tuple[torch.Tensor, torch.Tensor]],
    row: int,
    step: int,
) -> torch.Tensor:
    """Attend one query over the tokens it may see, head by head, with no cache and no mask.

    Tokens stand where they lie in a list of those that are seen, as StreamingLLM defines it: what
    counts is how far apart two of them are.
    """
    kept = min(case.options.kept, len(history))
    recent = case.window - case.options.kept if case.window else len(history)
    seen = history[:kept] + history[max(kept, len(history) - recent) :]
    keys, values = (torch.stack(part) for part in zip(*seen, strict=True))  # (n, K, D)
    places = torch.arange(len(seen))
    query = inputs["query"][row, step].view(1, case.kv_heads * case.group, -1)
    keys, query = _rotated(case, keys, places), _rotated(case, query, places[-1:])[0]
    distances = len(seen) - 1 - places
    heads = []
    for head in range(case.kv_heads * case.group):
        scores = keys[:, head // case.group] @ query[head] * case.attributes["scale"]
        scores = scores + case.options.kept_bias * (places < kept)
        if inputs["alibi_slopes"] is not None:
            scores = scores - inputs["alibi_slopes"][head] * distances
        if (table := inputs["distance_bias"]) is not None:
            scores = scores + table[head, distances.clamp(max=table.shape[1] - 1)]
        if inputs["sinks"] is not None:
            weights = torch.cat((scores, inputs["sinks"][head].view(1))).softmax(0)[:-1]
        else:
            weights = scores.softmax(0)
        heads.append(weights @ values[:, head // case.group])
    return torch.cat(heads)


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
