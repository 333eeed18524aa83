"""BatchSampler: the native kernel draws what RowSampler draws, token by token, with every setting
and at every CPU level; and log-probabilities against PyTorch's.
"""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptoss_onnx.custom_ops import library
from gptoss_onnx.errors import InputError, PackageError, RuntimeUnavailable
from gptoss_onnx.runtime import Sampling
from gptoss_onnx.runtime.batch_sampling import BatchSampler, token_logprobs
from gptoss_onnx.runtime.candidates import candidates
from gptoss_onnx.runtime.sampling import RowSampler
from support.native_levels import cpu_levels, needs_native
from support.tolerances import SAMPLER_PROBABILITIES, SAMPLING_SIGMAS

CASES = json.loads((Path(__file__).parents[1] / "clients" / "sampler_cases.json").read_text())[
    "cases"
]


@pytest.fixture(scope="module")
def native() -> BatchSampler:
    return BatchSampler("native")


settings_of_a_draw = st.builds(
    Sampling,
    temperature=st.one_of(st.floats(0.05, 4.0), st.sampled_from([1.0, 1e-300, 1e300])),
    top_k=st.one_of(st.just(0), st.integers(1, 9000)),
    top_p=st.one_of(st.just(1.0), st.floats(1e-9, 1.0), st.just(1 - 2**-53)),
    min_p=st.one_of(st.just(0.0), st.floats(1e-9, 1.0)),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.5, 3.0)),
    logit_bias=st.dictionaries(st.integers(0, 6), st.floats(-100, 100), max_size=3),
    frequency_penalty=st.one_of(st.just(0.0), st.floats(-2, 2)),
    presence_penalty=st.one_of(st.just(0.0), st.floats(-2, 2)),
    seed=st.integers(0, 2**32 - 1),
)


@needs_native
@settings(max_examples=300, deadline=None)
@given(
    sampling=settings_of_a_draw,
    vocab=st.sampled_from([7, 400, 1024, 5000]),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 4.0, 300.0]),
    levels=st.sampled_from([0, 3, 50]),
    seed=st.integers(0, 2**32 - 1),
)
@example(Sampling(1.0, top_p=0.5, seed=0), 400, 0.0, 0, 0)  # equal ones that reach top-p exactly
def test_the_same_token_for_the_same_seed(
    native: BatchSampler, sampling: Sampling, vocab: int, scale: float, levels: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    logits = (scale * random.standard_normal((4, vocab))).astype(np.float32)
    if levels:  # many ties
        logits = np.round(logits * levels / max(scale, 1e-3)) / np.float32(levels)
    logits[1, random.integers(0, vocab, vocab // 2)] = -np.inf
    logits[1, vocab // 2] = 1
    seen = [random.integers(0, vocab, 5) for _ in range(4)]
    plain = [RowSampler(sampling, row) for row in range(4)]
    rows = [RowSampler(sampling, row) for row in range(4)]
    for _ in range(5):
        expected = [row.choose(*each) for row, *each in zip(plain, logits, seen, strict=True)]
        assert native.choose(logits, rows, seen) == expected


def test_scores_near_the_largest_number_do_not_overflow() -> None:
    row = np.array([3e38, -3e38], np.float32)
    with np.errstate(all="raise", under="ignore"):
        tokens, _ = candidates(row, Sampling(6e-269, top_p=0.5))
    assert tokens.tolist() == [0]


DRAWS = """
import sys, numpy as np
from gptoss_onnx.runtime import Sampling
from gptoss_onnx.runtime.batch_sampling import BatchSampler
from gptoss_onnx.runtime.sampling import RowSampler
random = np.random.default_rng(5)
sampler = BatchSampler(sys.argv[1])
for vocab, scale in ((201_088, 1), (201_088, 3), (1500, 2), (33, 1)):
    logits = (scale * random.standard_normal((2, vocab))).astype(np.float32)
    for kept in (
        (1, 0, 1, 0), (1, 0, 0.95, 0), (0.7, 40, 0.9, 0.01), (1.3, 3000, 1, 0), (9, 0, 0.5, 0)
    ):
        rows = [RowSampler(Sampling(*kept, seed=3), row) for row in range(2)]
        print([sampler.choose(logits, rows) for _ in range(2)])
"""


@needs_native
def test_every_level_draws_the_same_from_a_whole_vocabulary() -> None:
    def drawn(kernels: str, level: str = "") -> str:
        command = [sys.executable, "-c", DRAWS, kernels]
        environment = {"GPTOSS_CPU_LEVEL": level, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout

    expected = drawn("portable")
    assert len(expected.splitlines()) == 20
    for level in cpu_levels()[:3]:  # scalar, avx2 and avx512; those above have no kernels of theirs
        assert drawn("native", level) == expected, level


@needs_native
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_table_of_all_clients(native: BatchSampler, case: dict[str, Any]) -> None:
    with np.errstate(over="ignore"):
        logits = np.array([[float(value) for value in case["logits"]]], np.float32)
    sampling, expected = Sampling(**case["settings"]), case["expected"]
    seen = [np.array(case["seen"], np.int64)]
    rows = [[RowSampler(sampling, row)] for row in range(50)]
    if "error" in expected:
        with pytest.raises(PackageError, match=r"the largest is .*, expected a finite number"):
            native.choose(logits, rows[0], seen)
        return
    drawn = {native.choose(logits, row, seen)[0] for row in rows}
    if "token" in expected:
        assert drawn == {expected["token"]}
    else:
        assert drawn <= set(np.flatnonzero(expected["probabilities"]).tolist())


@needs_native
def test_draws_follow_the_probabilities(native: BatchSampler) -> None:
    logits = (2 * np.random.default_rng(1).standard_normal((1, 40))).astype(np.float32)
    sampling = Sampling(temperature=1.5, top_p=0.9, min_p=0.02, seed=1)
    tokens, scores = candidates(logits[0], sampling)
    shares = np.zeros(40)
    shares[tokens] = np.exp(scores) / np.exp(scores).sum()
    row = RowSampler(sampling, 0)
    count = 20_000
    found = np.bincount([native.choose(logits, [row])[0] for _ in range(count)], minlength=40)
    deviation = np.sqrt(shares * (1 - shares) / count)
    assert (np.abs(found / count - shares) <= SAMPLING_SIGMAS * deviation).all()


def test_masked_tokens_never_come() -> None:
    logits = np.full((2, 300), -np.inf, np.float32)
    logits[0, 7], logits[1, [3, 250]] = -5, 2
    for sampling in (Sampling(), Sampling(1, seed=1), Sampling(1, 50, 0.99, 0.1, seed=1)):
        rows = [RowSampler(sampling, row) for row in range(2)]
        for _ in range(20):
            first, second = BatchSampler().choose(logits, rows)
            assert first == 7
            assert second in (3, 250)
    logits[0, 7] = -np.inf
    with pytest.raises(PackageError, match="the largest is -inf, expected a finite number"):
        BatchSampler().choose(logits, rows)


def test_rows_may_differ_and_are_counted() -> None:
    logits = np.array([[0, 1, 2, 3]] * 3, np.float32)
    rows = [
        RowSampler(Sampling(presence_penalty=1.5), 0),
        RowSampler(Sampling(temperature=1e-9, frequency_penalty=0.75), 1),
        RowSampler(Sampling(logit_bias={0: 100, 3: -100}), 2),
    ]
    steps = [BatchSampler().choose(logits, rows) for _ in range(5)]
    # 3 is worth 1.5 once it was said, as then is 2: 0.5; frequency: 3, 2.25, 1.5, 0.75 against 2
    assert [step[0] for step in steps] == [3, 2, 3, 3, 3]
    assert [step[1] for step in steps] == [3, 3, 2, 3, 2]
    assert [step[2] for step in steps] == [0] * 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 5), np.float32), 1), r"logits: found shape \(2, 5\), expected \(1, V\)"),
        ((np.zeros(5, np.float32), 1), r"logits: found shape \(5,\), expected \(1, V\)"),
        ((np.zeros((1, 5), np.float32), 1, []), r"and the tokens of 0, expected \(1, V\) for 1"),
        ((np.zeros((1, 5), np.float32), 1), "seen: found None, expected the row's tokens"),
    ],
)
def test_nonsense_is_one_line(arguments: tuple[Any, ...], message: str) -> None:
    logits, count, *seen = arguments
    rows = [RowSampler(Sampling(1, repetition_penalty=1.5), row) for row in range(count)]
    with pytest.raises(InputError, match=message):
        BatchSampler().choose(logits, rows, *seen)


def test_what_draws_is_chosen_in_the_open(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match="kernels: found 'fast', expected auto, native or port"):
        BatchSampler("fast")  # type: ignore[arg-type]  # what the test is about
    monkeypatch.setattr(library, "library_path", lambda: None)
    with caplog.at_level("WARNING"):
        assert BatchSampler().kernel == "numpy"
        assert BatchSampler("portable").kernel == "numpy"
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "sampling: numpy, which is slower (native library: found no libgptoss_ops.so"
    )
    with pytest.raises(RuntimeUnavailable, match="native library: found no libgptoss_ops"):
        BatchSampler("native")


@settings(max_examples=100, deadline=None)
@given(
    vocab=st.sampled_from([1, 9, 700, 3000]),
    top=st.integers(0, 20),
    scale=st.sampled_from([1.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_logprobs_are_torch_s(vocab: int, top: int, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = (scale * random.standard_normal(vocab)).astype(np.float32)
    token, top = int(random.integers(vocab)), min(top, vocab)
    found = token_logprobs(logits, token, top)
    expected = torch.from_numpy(logits).double().log_softmax(0)
    assert found.token == token
    assert math.isclose(found.logprob, float(expected[token]), abs_tol=SAMPLER_PROBABILITIES)
    best = expected.topk(top)
    assert [each for each, _ in found.top] == best.indices.tolist()
    np.testing.assert_allclose(
        [logprob for _, logprob in found.top], best.values, atol=SAMPLER_PROBABILITIES, rtol=0
    )


def test_logprobs_of_ties_and_masked_tokens() -> None:
    logits = np.full(2000, -np.inf, np.float32)
    logits[[5, 900, 1999]] = 1
    found = token_logprobs(logits, 0, 4)
    assert found.logprob == -math.inf
    assert [token for token, _ in found.top] == [5, 900, 1999, 0]
    for arguments, message in (((2000, 1), "token: found 2000"), ((0, -1), "top: found -1")):
        with pytest.raises(InputError, match=message):
            token_logprobs(logits, *arguments)
