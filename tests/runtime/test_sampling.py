"""Sampling: each step against transformers' logits processors and the shared table, nonsense
refused.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime import Sampling
from gptoss_onnx.runtime.candidates import candidates
from gptoss_onnx.runtime.sampling import MOST_BIASES, RowSampler
from support.tolerances import SAMPLER_FLOAT32, SAMPLER_PROBABILITIES

VOCAB = 400
NOTHING = np.zeros(0, np.int64)
CASES = json.loads((Path(__file__).parents[1] / "clients" / "sampler_cases.json").read_text())[
    "cases"
]


def _candidates(logits: Any, seen: Any, sampling: Sampling) -> tuple[Any, Any]:
    scores = RowSampler(sampling, 0).scores(logits, np.asarray(seen, np.int64))
    return candidates(scores, sampling)


def _probabilities(logits: Any, seen: Any, sampling: Sampling) -> np.ndarray[Any, Any]:
    tokens, scores = _candidates(np.asarray(logits, np.float32), seen, sampling)
    assert scores.max() == 0
    shares = np.zeros(len(logits))
    shares[tokens] = np.exp(scores)
    return shares / shares.sum()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_table_of_all_clients(case: dict[str, Any]) -> None:
    with np.errstate(over="ignore"):
        logits = np.array([float(value) for value in case["logits"]], np.float32)
    sampling, expected = Sampling(**case["settings"]), case["expected"]
    seen = np.array(case["seen"], np.int64)
    if "error" in expected:
        with pytest.raises(
            PackageError, match=r"^logits: the largest is (nan|inf|-inf), expected a finite number"
        ):
            RowSampler(sampling, 0).choose(logits, seen)
    elif "token" in expected:
        assert RowSampler(sampling, 0).choose(logits, seen) == expected["token"]
    else:
        shares = np.array(expected["probabilities"])
        np.testing.assert_allclose(
            _probabilities(logits, seen, sampling), shares, atol=SAMPLER_PROBABILITIES, rtol=0
        )
        drawn = {RowSampler(sampling, row).choose(logits, seen) for row in range(50)}
        assert drawn <= set(np.flatnonzero(shares).tolist())


@settings(max_examples=200, deadline=None)
@given(
    logits=st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=12
    ),
    temperature=st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False),
    penalty=st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False),
    top_k=st.integers(0, 12),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    data=st.data(),
)
def test_no_setting_overflows(
    logits: list[float],
    temperature: float,
    penalty: float,
    top_k: int,
    top_p: float,
    min_p: float,
    data: st.DataObject,
) -> None:
    seen = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=12))
    sampling = Sampling(temperature, top_k, top_p, min_p, penalty, seed=1)
    row = np.array(logits, np.float32)
    with np.errstate(all="raise", under="ignore"):
        shares = _probabilities(row, seen, sampling)
        token = RowSampler(sampling, 0).choose(row, np.array(seen, np.int64))
    assert np.isfinite(shares).all()
    assert shares[token] > 0
    greedy = RowSampler(Sampling(repetition_penalty=penalty), 0).choose(
        row, np.array(seen, np.int64)
    )
    # Division may make it equal to others, of which top-p takes the first.
    without = _probabilities(row, seen, Sampling(temperature, top_k, 1, min_p, penalty))
    assert without[greedy] == without.max()


def _transformers(
    sampling: Sampling, seen: list[int], logits: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    processors = LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)]
    )
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(MinPLogitsWarper(sampling.min_p))
    ids: Any = torch.tensor([seen])  # transformers asks for the legacy LongTensor
    scores: Any = torch.from_numpy(logits)[None]
    return np.asarray(processors(ids, scores)[0])


@settings(max_examples=200, deadline=None)
@given(
    sampling=st.builds(
        Sampling,
        temperature=st.floats(0.05, 4.0),
        top_k=st.one_of(st.just(0), st.integers(1, 2 * VOCAB)),
        top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
        min_p=st.one_of(st.just(0.0), st.floats(1e-6, 1.0)),
        repetition_penalty=st.one_of(st.just(1.0), st.floats(0.5, 3.0)),
    ),
    vocab=st.sampled_from([VOCAB, 6144]),
    seed=st.integers(0, 2**32 - 1),
)
def test_restrictions_agree_with_transformers(sampling: Sampling, vocab: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = (4 * random.standard_normal(vocab)).astype(np.float32)
    seen = random.integers(0, vocab, 30)
    tokens, kept = _candidates(logits, seen, sampling)
    ours = np.full(vocab, -np.inf)
    ours[tokens] = kept
    theirs = _transformers(sampling, seen.tolist(), logits).astype(np.float64)
    # A candidate on the very edge of top-p or min-p may fall either way: they compute in float32.
    differing = np.flatnonzero(np.isfinite(ours) != np.isfinite(theirs))
    assert differing.size <= 1
    both = np.isfinite(ours) & np.isfinite(theirs)
    # Ours begin at 0, whatever the largest logit is.
    np.testing.assert_allclose(
        ours[both], (theirs - theirs.max())[both], rtol=0, atol=SAMPLER_FLOAT32
    )


def test_ties_with_the_last_of_top_k_stay() -> None:
    tokens, _ = _candidates(
        np.array([1, 3, 2, 2, 0], np.float32), NOTHING, Sampling(temperature=1, top_k=2)
    )
    assert tokens.tolist() == [1, 2, 3]


@pytest.mark.parametrize("vocab", [4096, 200])
def test_of_equally_probable_tokens_the_first_are_in_the_nucleus(vocab: int) -> None:
    logits = np.zeros(vocab, np.float32)
    logits[7] = 1e-3
    tokens, _ = _candidates(logits, NOTHING, Sampling(temperature=1, top_p=2.5 / vocab))
    assert tokens.tolist() == [0, 1, 7]


@pytest.mark.parametrize("penalty", [0.7, 1.3])
def test_top_k_of_penalized_float64_scores_is_exact(penalty: float) -> None:
    """The k-th largest is sought in float32 first; scores that only float64 tells apart must not be
    mixed up.
    """
    logits = np.full(VOCAB, 3, np.float32)
    logits[:50] = np.nextafter(np.float32(3), np.float32(4)) * np.float32(penalty)
    seen = np.arange(50)
    tokens, _ = _candidates(
        logits, seen, Sampling(temperature=1, top_k=50, repetition_penalty=penalty)
    )
    exact = logits.astype(np.float64)
    exact[seen] /= penalty
    assert tokens.tolist() == np.flatnonzero(exact >= np.sort(exact)[-50]).tolist()


def test_zero_temperature_takes_the_largest_after_the_penalty() -> None:
    logits = np.array([1.0, 4.0, 3.9], np.float32)
    sampler = RowSampler(Sampling(repetition_penalty=1.5), 0)
    said: list[int] = []
    for _ in range(3):
        said.append(sampler.choose(logits, np.array(said, np.int64)))
    # 4 wins once; 4 / 1.5 loses to 3.9; then both are penalized.
    assert said == [1, 2, 1]


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = RowSampler(Sampling(temperature=1, top_k=3, seed=1), 0)
    draws = np.array([sampler.choose(logits, NOTHING) for _ in range(4000)])
    shares = np.bincount(draws, minlength=4) / draws.size
    np.testing.assert_allclose(shares, np.array([0.5, 0.3, 0.15, 0]) / 0.95, atol=0.03)
    assert shares[3] == 0


def test_seeds_reproduce_and_rows_differ() -> None:
    logits = np.zeros(VOCAB, np.float32)

    def draws(seed: int | None, row: int) -> list[int]:
        sampler = RowSampler(Sampling(temperature=1, seed=seed), row)
        return [sampler.choose(logits, NOTHING) for _ in range(8)]

    assert draws(3, 0) == draws(3, 0)
    assert draws(3, 0) != draws(3, 1)
    assert draws(3, 0) != draws(4, 0)
    assert draws(None, 0) != draws(None, 0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", 10**400),
        ("temperature", None),
        ("temperature", "1"),
        ("temperature", True),
        ("temperature", np.bool_(True)),
        ("temperature", np.float32("nan")),
        ("temperature", np.ones(1)),
        ("temperature", 1j),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_k", None),
        ("top_k", "3"),
        ("top_k", False),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_p", None),
        ("min_p", -0.1),
        ("min_p", [0.1]),
        ("repetition_penalty", 0),
        ("repetition_penalty", "1.1"),
        ("seed", -1),
        ("seed", 1.0),
        ("seed", True),
        ("stop_tokens", (1, -2)),
        ("stop_tokens", 5),
        ("stop_tokens", "12"),
        ("stop_tokens", (1.0,)),
        ("stop_tokens", {1: 2}),
        ("stop_tokens", np.zeros((1, 1), np.int64)),
        ("stop", ("",)),
        ("stop", "a string"),
        ("stop", b"bytes"),
        ("stop", None),
        ("stop", (1,)),
        ("stop", 7),
        ("logit_bias", [(1, 2.0)]),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {"1": 1.0}),
        ("logit_bias", {1.5: 1.0}),
        ("logit_bias", dict.fromkeys(range(MOST_BIASES + 1), 1.0)),
        ("logit_bias of 7", {7: 100.1}),
        ("logit_bias of 7", {7: float("nan")}),
        ("logit_bias of 7", {7: "1"}),
        ("frequency_penalty", 2.01),
        ("frequency_penalty", float("nan")),
        ("presence_penalty", -2.01),
        ("presence_penalty", None),
        ("presence_penalty", True),
    ],
)
def test_settings_out_of_range_are_named(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{setting}: found .*, expected "):
        Sampling(**{setting.split()[0]: value})


def test_numbers_of_numpy_are_welcome_and_kept_as_python_s() -> None:
    sampling = Sampling(
        temperature=np.float32(0.5),
        top_k=np.int64(3),
        top_p=np.float64(0.5),
        min_p=np.float16(0.25),
        repetition_penalty=np.int32(2),
        seed=np.uint64(2**63),
        stop_tokens=np.array([1, 2]),  # type: ignore[arg-type]  # welcome, though not what the type says
        stop=["a"],  # type: ignore[arg-type]  # likewise
        logit_bias={np.int64(4): np.float32(1.5)},
        frequency_penalty=np.float32(-0.5),
    )
    assert sampling == Sampling(0.5, 3, 0.5, 0.25, 2.0, 2**63, (1, 2), ("a",), {4: 1.5}, -0.5)
    assert {type(sampling.temperature), type(sampling.repetition_penalty)} == {float}
    assert {type(sampling.top_k), type(sampling.seed)} == {int}
