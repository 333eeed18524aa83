"""Sampling: each step against transformers' logits processors, draws against probabilities, nonsense refused."""

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
from gptoss_onnx.runtime.sampling import NUCLEUS_BLOCK, RowSampler, penalize, restrict

VOCAB = 400


def _transformers(sampling: Sampling, seen: list[int], logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
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
    vocab=st.sampled_from([VOCAB, 6 * NUCLEUS_BLOCK]),
    seed=st.integers(0, 2**32 - 1),
)
def test_restrictions_agree_with_transformers(sampling: Sampling, vocab: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = (4 * random.standard_normal(vocab)).astype(np.float32)
    seen = random.integers(0, vocab, 30)
    marked = np.zeros(vocab, np.bool_)
    marked[seen] = True
    ours = restrict(penalize(logits, marked, sampling.repetition_penalty), sampling)
    theirs = _transformers(sampling, seen.tolist(), logits)
    # A candidate on the very edge of top-p or min-p may fall either way: float32 sums against float64 sums.
    differing = np.flatnonzero(np.isfinite(ours) != np.isfinite(theirs))
    assert differing.size <= 1
    both = np.isfinite(ours) & np.isfinite(theirs)
    np.testing.assert_array_equal(ours[both], theirs[both])


def test_ties_with_the_last_of_top_k_stay() -> None:
    logits = np.array([1, 3, 2, 2, 0], np.float32)
    kept = np.isfinite(restrict(logits, Sampling(temperature=1, top_k=2)))
    assert kept.tolist() == [False, True, True, True, False]


def test_zero_temperature_takes_the_largest_after_the_penalty() -> None:
    logits = np.array([1.0, 4.0, 3.9], np.float32)
    sampler = RowSampler(Sampling(repetition_penalty=1.5), np.array([], np.int64), 0, 3)
    # 4 wins once; 4 / 1.5 loses to 3.9; then both are penalized.
    assert [sampler.choose(logits) for _ in range(3)] == [1, 2, 1]


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = RowSampler(Sampling(temperature=1, top_k=3, seed=1), np.array([], np.int64), 0, 4)
    draws = np.array([sampler.choose(logits) for _ in range(4000)])
    shares = np.bincount(draws, minlength=4) / draws.size
    np.testing.assert_allclose(shares, np.array([0.5, 0.3, 0.15, 0]) / 0.95, atol=0.03)
    assert shares[3] == 0


def test_seeds_reproduce_and_rows_differ() -> None:
    logits = np.zeros(VOCAB, np.float32)

    def draws(seed: int | None, row: int) -> list[int]:
        sampler = RowSampler(Sampling(temperature=1, seed=seed), np.array([], np.int64), row, VOCAB)
        return [sampler.choose(logits) for _ in range(8)]

    assert draws(3, 0) == draws(3, 0)
    assert draws(3, 0) != draws(3, 1)
    assert draws(3, 0) != draws(4, 0)
    assert draws(None, 0) != draws(None, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    logits = np.array([0, bad, 1], np.float32)
    with pytest.raises(PackageError, match="expected a finite number"):
        RowSampler(Sampling(), np.array([], np.int64), 0, 3).choose(logits)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("stop_tokens", (1, -2)),
        ("stop", ("",)),
        ("stop", "a string"),
    ],
)
def test_settings_out_of_range_are_named(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{setting}: found "):
        Sampling(**{setting: value})
