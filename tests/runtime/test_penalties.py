"""Logit bias and penalties against their formulas."""

from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.sampling import RowSampler, check_vocabulary
from support.fake_package import VOCAB, write_fake_package

NOTHING = np.zeros(0, np.int64)


def test_bias_and_penalties_are_openai_s() -> None:
    """mu[j] − c[j] · frequency − (c[j] > 0) · presence, where c counts what was generated; the bias
    is added to the logits before the repetition penalty sees them.
    """
    logits = np.linspace(-3, 3, 7, dtype=np.float32)
    sampling = Sampling(
        logit_bias={0: 7.5, 6: -2},
        frequency_penalty=0.5,
        presence_penalty=-1.25,
        repetition_penalty=2.0,
    )
    sampler = RowSampler(sampling, 0)
    for token in (2, 5, 2):
        sampler.count(token)
    found = sampler.scores(logits, np.array([0, 1, 5]))
    expected = [4.5 / 2, -2 * 2, -1 - 2 * 0.5 + 1.25, 0, 1, 2 / 2 - 0.5 + 1.25, 3 - 2]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(logits, np.linspace(-3, 3, 7, dtype=np.float32))


def test_penalties_count_what_a_sampler_chose_and_no_prompt() -> None:
    logits = np.array([1.0, 0.9, 0.5], np.float32)
    sampler = RowSampler(Sampling(frequency_penalty=0.3), 0)
    # 1.0, then 0.7 against 0.9, then 0.7 against 0.6, then 0.4 against 0.6 and 0.5
    assert [sampler.choose(logits, np.array([1, 1, 1])) for _ in range(4)] == [0, 1, 0, 1]


def test_tokens_beyond_the_vocabulary_are_named() -> None:
    check_vocabulary(Sampling(stop_tokens=(9,), logit_bias={9: 1}), 10)
    for sampling, name in (
        (Sampling(stop_tokens=(3, 10)), "stop_tokens"),
        (Sampling(logit_bias={1: 1, 10: 1}), "logit_bias"),
    ):
        with pytest.raises(InputError, match=f"^{name}: found 10, expected 0 to 9"):
            check_vocabulary(sampling, 10)
    with pytest.raises(InputError, match=r"^logit_bias: found 10, expected 0 to 9"):
        RowSampler(Sampling(logit_bias={10: 1}), 0).choose(np.zeros(10, np.float32), NOTHING)


def test_generation_heeds_them(tmp_path: Path) -> None:
    with Session.open(write_fake_package(tmp_path), threads=1) as session:

        def said(**settings: object) -> list[int]:
            sampling = Sampling(stop_tokens=(), **settings)  # type: ignore[arg-type]  # of many kinds
            return list(session.generate([1, 2, 3], sampling, max_new_tokens=5))

        plain = said()
        assert said(logit_bias={plain[0]: -100})[0] != plain[0]
        biased = said(logit_bias={7: 100}, frequency_penalty=2)
        assert biased.count(7) > 1
        with pytest.raises(InputError, match=f"logit_bias: found {VOCAB}, expected 0 to"):
            session.generate([1], Sampling(logit_bias={VOCAB: 1}))
