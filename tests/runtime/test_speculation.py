"""Speculation: what is said is what plain decoding says, whatever was guessed, and the cache holds
what it would hold.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import KVCache, Sampling, Session, Speculation, generation
from gptoss_onnx.runtime.speculation import pace
from support.fake_package import LONGEST, VOCAB, write_fake_package

WINDOWS = (0, 3, 8)
# greedy continuations that fall into loops, leave them, and come back
BIAS = np.linspace(0, 40, VOCAB, dtype=np.float32)[::-1]
LOOP = Sampling(stop_tokens=())
SETTINGS = (
    LOOP,
    Sampling(temperature=30, seed=3, stop_tokens=()),
    Sampling(temperature=2, seed=4, stop_tokens=()),
    Sampling(
        temperature=9,
        top_k=9,
        top_p=0.95,
        min_p=0.01,
        repetition_penalty=1.2,
        frequency_penalty=0.5,
        presence_penalty=1.5,
        logit_bias={2: 9.0, 7: -3.0},
        seed=5,
        stop_tokens=(),
    ),
    Sampling(repetition_penalty=1.7, frequency_penalty=2, logit_bias={4: 20.0}, stop_tokens=()),
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = write_fake_package(
        tmp_path_factory.mktemp("package"), WINDOWS, bias=BIAS.tolist(), sign=-1
    )
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({chr(97 + t): t for t in range(VOCAB)}, unk_token="a")
    )
    backend.decoder = tokenizers.decoders.Fuse()
    backend.save(str(folder / "tokenizer.json"))
    with Session.open(folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A package that says something else now and then."""
    bias = np.where(np.arange(VOCAB) % 5 == 0, BIAS + 6, BIAS)
    folder = write_fake_package(
        tmp_path_factory.mktemp("draft"), WINDOWS, bias=bias.tolist(), sign=-1
    )
    with Session.open(folder, threads=1) as opened:
        yield opened


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess as many tokens as there are chances, whatever that costs."""
    monkeypatch.setattr(pace.Pace, "length", lambda self, chances, each, explores: len(chances))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("speculate", [1, 3, 16])
def test_the_same_tokens_as_without(session: Session, sampling: Sampling, speculate: int) -> None:
    """Looked-up guesses are compared with the row's own draws: the same seed says the same."""
    prompt = [1, 2, 3, 4, 1, 2]
    plain = list(session.generate(prompt, sampling, max_new_tokens=60))
    guessing = session.generate(prompt, sampling, max_new_tokens=60, speculate=speculate)
    assert list(guessing) == plain
    assert guessing.tokens == [plain]
    calls, drafted, accepted = guessing.speculated or (0, 0, 0)
    assert calls + accepted == 59  # the prompt's call says the first
    assert 0 < accepted <= drafted
    assert guessing.finish_reason == "length"


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("sampling", [SETTINGS[0], SETTINGS[4]])
def test_a_draft_that_is_wrong_now_and_then(
    session: Session, draft: Session, sampling: Sampling
) -> None:
    prompt = [1, 2, 3, 4, 1, 2]
    plain = list(session.generate(prompt, sampling, max_new_tokens=60))
    with Speculation(session, 5, draft) as speculation:
        for _ in range(2):  # the second one finds the first one's tokens in the draft's cache
            guessing = session.generate(prompt, sampling, max_new_tokens=60, speculate=speculation)
            assert list(guessing) == plain
            calls, drafted, accepted = guessing.speculated or (0, 0, 0)
            assert calls + accepted == 59
            assert 0 < accepted < drafted
    alone = session.generate(prompt, sampling, max_new_tokens=60, speculate=5, draft=draft)
    assert list(alone) == plain


@pytest.mark.usefixtures("eager")
def test_the_same_model_as_its_draft_is_always_right(session: Session) -> None:
    for sampling in SETTINGS:
        guessing = session.generate(
            [1, 2, 3], sampling, max_new_tokens=41, speculate=4, draft=session
        )
        assert len(list(guessing)) == 41
        assert guessing.speculated == (8, 32, 32)


@pytest.mark.usefixtures("eager")
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_cache_holds_what_was_given(session: Session, data: st.DataObject) -> None:
    """Left early, stopped or full: the cache is as after plain decoding, and goes on."""
    prompt = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=30))
    count = data.draw(st.integers(1, 50))
    capacity = data.draw(st.integers(max(len(prompt), 9), 90))
    chunk = data.draw(st.sampled_from([1, 2, 5, 64]))
    leave = data.draw(st.integers(0, 50))
    sampling = data.draw(
        st.sampled_from([*SETTINGS, Sampling(stop_tokens=(9,)), Sampling(stop=("ba", "cd"))])
    )
    said: list[Any] = []
    caches: list[KVCache] = []
    for speculate in (0, data.draw(st.integers(1, 20))):
        cache = session.new_cache(1, capacity, chunk=chunk)
        guessing = session.generate(
            prompt, sampling, max_new_tokens=count, cache=cache, speculate=speculate
        )
        tokens = [token for token, _ in zip(guessing, range(leave), strict=False)]
        reason = guessing.finish_reason
        guessing.close()
        assert guessing.tokens[0][: len(tokens)] == tokens
        said.append((guessing.tokens, reason, cache.lengths.tolist(), cache.tokens[0].tolist()))
        caches.append(cache)
    assert said[0] == said[1]
    if caches[0].lengths[0] < capacity:
        both = [session.forward([[3]], cache) for cache in caches]
        np.testing.assert_array_equal(*both)


@pytest.mark.usefixtures("eager")
def test_an_own_cache_grows(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "FIRST_ROOM", 2)
    plain = list(session.generate([1, 2, 1, 2], LOOP, max_new_tokens=60))
    guessing = session.generate([1, 2, 1, 2], LOOP, max_new_tokens=60, speculate=16)
    assert list(guessing) == plain


@pytest.mark.usefixtures("eager")
def test_a_failed_call_can_be_tried_again(session: Session) -> None:
    cache = session.new_cache(1, 90)
    guessing = session.generate([1, 2, 1, 2], LOOP, max_new_tokens=20, cache=cache, speculate=4)
    tokens = [next(guessing)]
    with cache.use:
        for _ in range(3):
            with pytest.raises(InputError, match="in use by another call"):
                next(guessing)
    tokens += guessing
    assert tokens == list(session.generate([1, 2, 1, 2], LOOP, max_new_tokens=20))


def test_measured_costs_decide(session: Session) -> None:
    """With nothing patched, the tokens are the same, too."""
    plain = list(session.generate([1, 2, 1, 2], LOOP, max_new_tokens=200))
    for draft in (None, session):
        guessing = session.generate(
            [1, 2, 1, 2], LOOP, max_new_tokens=200, speculate=8, draft=draft
        )
        assert list(guessing) == plain


def test_wrong_arguments(session: Session, draft: Session, tmp_path: Path) -> None:
    speculation = Speculation(session, 4)
    for options, message in (
        ({"speculate": -1}, "speculate: found -1, expected an integer, 0 to 64"),
        ({"speculate": 65}, "speculate: found 65"),
        ({"speculate": "8"}, "speculate: found '8'"),
        ({"draft": draft}, "speculate: found 0 with a draft"),
        ({"speculate": 4, "draft": tmp_path}, "draft: found .*, expected a Session"),
        ({"speculate": speculation, "draft": draft}, "a Speculation of another session or draft"),
    ):
        with pytest.raises(InputError, match=message):
            session.generate([1], **options)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(InputError, match="a Speculation of another session or draft"):
        draft.generate([1], speculate=speculation)
    with pytest.raises(InputError, match="speculate: found several sequences, expected one"):
        session.generate([[1], [2]], speculate=4)


def test_a_draft_of_another_tokenizer(session: Session, tmp_path: Path) -> None:
    def package(name: str, shift: int, end: str) -> Path:
        ids = {chr(97 + (t + shift) % VOCAB): t for t in range(VOCAB)}
        backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="a"))
        folder = write_fake_package(tmp_path / name, WINDOWS)
        (folder / "tokenizer.json").write_text(backend.to_str() + end)
        return folder

    with Session.open(package("other", 1, ""), threads=1) as other:
        message = "draft: found another tokenizer than the model's, expected the same"
        with pytest.raises(InputError, match=message) as caught:
            session.generate([1], speculate=4, draft=other)
        assert "\n" not in str(caught.value)
    # the same ids in a file that is written otherwise are the same tokenizer
    with Session.open(package("same", 0, "\n\n"), threads=1) as same:
        session.generate([1], speculate=4, draft=same)


def test_texts_beyond_the_draft_s_longest(
    session: Session, draft: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace.Pace, "length", lambda self, chances, each, explores: len(chances))
    manifest = draft.manifest
    assert manifest.longest == LONGEST
    object.__setattr__(manifest, "longest", 30)
    try:
        plain = list(session.generate([1, 2, 3], LOOP, max_new_tokens=60))
        guessing = session.generate([1, 2, 3], LOOP, max_new_tokens=60, speculate=5, draft=draft)
        assert list(guessing) == plain
        beyond = session.generate([1] * 40, LOOP, max_new_tokens=9, speculate=5, draft=draft)
        assert len(list(beyond)) == 9
        assert beyond.speculated == (8, 0, 0)
    finally:
        object.__setattr__(manifest, "longest", LONGEST)
