"""Rejection sampling: whatever the guesses were drawn from, what is said has the model's own
probabilities, which are computed exactly.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.candidates import candidates
from gptoss_onnx.runtime.sampling import RowSampler
from gptoss_onnx.runtime.speculation import lookup, pace
from gptoss_onnx.runtime.speculation.rejection import drawn_token, judged_token
from support.fake_package import VOCAB, expected_logits, write_fake_package
from support.tolerances import SAMPLING_SIGMAS

WINDOWS = (0, 3, 8)
DRAWS = 8_000
TEXTS = 800
SETTINGS = (
    Sampling(temperature=1, seed=1),
    Sampling(temperature=0.6, top_k=4, seed=2),
    Sampling(temperature=1.5, top_p=0.8, seed=3),
    Sampling(temperature=1, min_p=0.2, seed=4),
    Sampling(
        temperature=0.9,
        top_p=0.9,
        repetition_penalty=1.4,
        frequency_penalty=0.7,
        presence_penalty=-0.5,
        logit_bias={1: 2.0, 5: -100.0},
        seed=5,
    ),
)


def shares_of(sampler: RowSampler, logits: np.ndarray, seen: list[int], vocab: int) -> np.ndarray:
    """Return the probabilities (V) of what a sampler draws."""
    scores = sampler.scores(logits.astype(np.float32), np.array(seen, np.int64))
    tokens, kept = candidates(scores, sampler.sampling)
    shares = np.zeros(vocab)
    shares[tokens] = np.exp(kept)
    return shares / shares.sum()


def check(found: np.ndarray, expected: np.ndarray, draws: int) -> None:
    """Compare counts with probabilities."""
    assert found[expected == 0].sum() == 0
    deviations = np.abs(found - draws * expected)
    variances = draws * np.maximum(expected * (1 - expected), 0)
    # 1: a count that is expected to be near 0 is no normal number
    assert (deviations <= SAMPLING_SIGMAS * np.sqrt(variances) + 1).all()


@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("likeness", [0.0, 0.7, 1.0])
def test_a_judged_token_is_the_model_s(sampling: Sampling, likeness: float) -> None:
    """`likeness` 1: the draft is the model itself, and no guess is rejected."""
    random, vocab, seen = np.random.default_rng(7), 8, [0, 1, 1, 6]
    ours = random.normal(0, 1.5, vocab).astype(np.float32)
    other = random.normal(0, 1.5, vocab).astype(np.float32)
    theirs = (likeness * ours + (1 - likeness) * other).astype(np.float32)
    model, held = RowSampler(sampling, 0), np.array(seen, np.int64)
    for token in seen[2:]:
        model.count(token)
    expected = shares_of(model, ours, seen, vocab)
    counts, accepted = np.zeros(vocab), 0
    fresh = model.guessing()  # keeps the counts as they were
    for _ in range(DRAWS):
        model._penalties = fresh._penalties.copy()
        guess, drawn = drawn_token(model.guessing(), theirs, held)
        assert drawn is not None
        token = judged_token(model, ours, held, guess, drawn)
        counts[token] += 1
        accepted += token == guess
    check(counts, expected, DRAWS)
    q = shares_of(fresh, theirs, seen, vocab)
    rate = np.minimum(expected, q).sum()  # no sampler of the same kind accepts more
    check(np.array([accepted]), np.array([rate]), DRAWS)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, Session]]:
    folders = [
        write_fake_package(tmp_path_factory.mktemp(name), WINDOWS, bias=bias, sign=-1)
        for name, bias in (("model", np.zeros(VOCAB)), ("draft", np.arange(VOCAB) * 0.3))
    ]
    with (
        Session.open(folders[0], threads=1) as model,
        Session.open(folders[1], threads=1) as draft,
    ):
        yield model, draft


def probability(tokens: tuple[int, ...], prompt: list[int], sampling: Sampling) -> float:
    """Return the probability of a text after a prompt, from plain histories."""
    row, share = RowSampler(sampling, 0), 1.0
    for place, token in enumerate(tokens):
        held = [*prompt, *tokens[:place]]
        logits = -expected_logits(held, WINDOWS, len(held) - 1)
        share *= shares_of(row, logits, held, VOCAB)[token]
        if share == 0:
            return 0.0
        row.count(token)
    return float(share)


@pytest.mark.parametrize("with_draft", [False, True])
def test_texts_have_the_model_s_probabilities(
    sessions: tuple[Session, Session], with_draft: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace.Pace, "length", lambda self, chances, each, explores: len(chances))
    monkeypatch.setattr(lookup, "LEAST_MATCH", 1)  # so that something is found at once
    model, draft = sessions
    prompt, length = list(range(VOCAB)), 4
    sampling = Sampling(
        temperature=12, top_k=3, frequency_penalty=1.5, repetition_penalty=1.1, stop_tokens=()
    )
    counts, guesses = Counter[tuple[int, ...]](), 0
    for seed in range(TEXTS):
        texts = model.generate(
            prompt,
            replace(sampling, seed=seed),
            max_new_tokens=length,
            speculate=3,
            draft=draft if with_draft else None,
        )
        counts[tuple(texts)] += 1
        guesses += 0 if texts.speculated is None else texts.speculated.drafted
    assert guesses > TEXTS
    candidates_ = {token for text in counts for token in text}
    shares = {
        text: share
        for text in product(candidates_, repeat=length)
        if (share := probability(text, prompt, sampling)) > 0
    }
    assert counts.keys() <= shares.keys()
    found = np.array([counts[text] for text in shares], float)
    check(found, np.array(list(shares.values())), TEXTS)
    # all of them together: chi-square of those that are expected at least five times
    expected = TEXTS * np.array(list(shares.values()))
    often = expected >= 5
    chi = ((found - expected)[often] ** 2 / expected[often]).sum()
    free = int(often.sum())
    assert free >= 8
    assert abs(chi - free) < SAMPLING_SIGMAS * np.sqrt(2 * free)
