"""Kept first tokens over 300 tokens, one by one and in ragged chunks, against StreamingLLM's plain
definition: every query attends over a list of tokens that stand at its indices.
"""

import random
from pathlib import Path

import pytest
import torch

from support.attention_cases import Call, Case, Options, real_tokens, run_definition
from support.native_attention import model_of
from support.native_levels import NativeCase, cpu_levels, run_at_level
from support.op_models import op_model, run_ort, session_of
from support.plain_attention import PlainHistory
from support.tolerances import ATTENTION_300

TOKENS = 300
LAYERS = {
    "rotated": Options(sinks=False, kept=4, kept_bias=0.7),
    "partly rotated, with sinks": Options(rotary=3, interleaved=1, kept=3),
    "with slopes": Options(sinks=False, rotary=0, slopes=True, kept=4, kept_bias=-0.5),
}


def ragged_calls() -> tuple[tuple[tuple[int, int], int], ...]:
    """Return calls of up to 24 columns for two rows, of which the first gets all its tokens."""
    draw, calls, left = random.Random(5), [], TOKENS
    while left:
        columns = min(left, draw.randint(1, 24))
        calls.append(((columns, draw.randint(0, columns)), columns))
        left -= columns
    return tuple(calls)


CALLS = {"one by one": (((1,), 1),) * TOKENS, "ragged": ragged_calls()}


RUNS = [("rotated", "one by one"), *((layer, "ragged") for layer in LAYERS)]


@pytest.fixture(scope="module", params=RUNS, ids=", ".join)
def run(request: pytest.FixtureRequest) -> "Run":
    """Return a case, its calls through the definition, and what the plain definition gives."""
    layer, calls = LAYERS[request.param[0]], CALLS[request.param[1]]
    rewinds = ((0,) * len(calls[0][0]),) * len(calls)
    case = Case(2, 2, 6, 24, 0, calls, rewinds, seed=11, options=layer)
    made, history = list(run_definition(case, torch.float32)), PlainHistory(case)
    return case, made, [history.attend(inputs) for inputs, _, _ in made]


Run = tuple[Case, list[Call], list[torch.Tensor]]


def assert_equal(run: Run, outputs: list[torch.Tensor]) -> None:
    for (inputs, _, _), found, expected in zip(run[1], outputs, run[2], strict=True):
        real = real_tokens(found.shape[1], inputs["new_lengths"])
        torch.testing.assert_close(found[real], expected, atol=ATTENTION_300, rtol=0)


def test_definition(run: Run) -> None:
    assert_equal(run, [output for _, output, _ in run[1]])


def test_body(run: Run) -> None:
    case, calls, _ = run
    session = session_of(op_model("SinkAttention", calls[0][0], case.attributes))
    assert_equal(run, [run_ort(session, inputs)[0] for inputs, _, _ in calls])


@pytest.mark.parametrize("level", cpu_levels())
def test_kernel(run: Run, level: str, tmp_path: Path) -> None:
    case, calls, _ = run
    model = model_of(case, calls[0][0])
    natives = [NativeCase(model, inputs) for inputs, _, _ in calls]
    assert_equal(run, [outputs[0] for outputs in run_at_level(level, natives, tmp_path)])
