"""Log-likelihoods and answers by a package, without the harness, against the PyTorch reference."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package
from gptoss_onnx.lm_eval.answers import answers
from gptoss_onnx.lm_eval.scoring import Scorer, rolling_windows
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.runtime import Sampling, Session, Tokenizer
from support.tolerances import LOG_LIKELIHOOD

TEXT = (
    "When the rain had stopped they walked down to the village together, talking of the letter "
    "that had come that day, and of what her brother would say to it when he returned. "
) * 4
BEGIN = 2041  # <|startoftext|> of the demo checkpoint


@pytest.fixture(scope="module")
def session(demo_package: Package):  # type: ignore[no-untyped-def]
    with Session.open(demo_package.folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(demo_checkpoint: Path) -> Decoder:
    with open_checkpoint(demo_checkpoint) as checkpoint:
        return Decoder.from_checkpoint(checkpoint)


def expected(reference: Decoder, context: list[int], continuation: list[int]) -> float:
    """Return a log-likelihood by one forward pass of the reference."""
    logits = reference.score([*context, *continuation]).double()
    rows = logits.log_softmax(-1)[len(context) - 1 : -1]
    return float(rows[torch.arange(len(continuation)), continuation].sum())


@pytest.mark.parametrize("longest", [None, 64])
def test_perplexity_is_the_references(
    session: Session, reference: Decoder, longest: int | None
) -> None:
    ids = session.tokenizer.encode(TEXT)
    found = Scorer(session, longest).rolling(ids, BEGIN)
    windows = list(rolling_windows(ids, BEGIN, longest or session.manifest.longest))
    assert (len(windows) == 1) == (longest is None)
    theirs = sum(expected(reference, *window) for window in windows)
    assert found == pytest.approx(theirs, rel=LOG_LIKELIHOOD)
    perplexities = [math.exp(-total / len(TEXT.split())) for total in (found, theirs)]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=10 * LOG_LIKELIHOOD)


@pytest.mark.parametrize("package", ["demo_package", "ort_package"])
def test_choices_after_one_context_score_as_each_alone(
    package: str, reference: Decoder, request: pytest.FixtureRequest
) -> None:
    with Session.open(request.getfixturevalue(package).folder) as session:
        ids = session.tokenizer.encode(TEXT)
        context = ids[:40]
        choices = [ids[40:45], ids[50:51], ids[40:100], []]
        pairs = [(context, choice) for choice in choices] + [(ids[:1], ids[1:3])]
        found = list(Scorer(session).scores(pairs))
    for (before, after), score in zip(pairs, found, strict=True):
        theirs = expected(reference, before, after) if after else 0.0
        assert score.log_likelihood == pytest.approx(theirs, rel=LOG_LIKELIHOOD)


def test_greedy_is_what_the_session_generates(session: Session) -> None:
    ids = session.tokenizer.encode(TEXT)[:30]
    said = list(session.generate(ids, Sampling(stop_tokens=()), max_new_tokens=5))
    scorer = Scorer(session)
    other = [*said[:-1], (said[-1] + 1) % session.vocab]
    assert [score.is_greedy for score in scorer.scores([(ids, said), (ids, other)])] == [
        True,
        False,
    ]


def test_what_is_too_long_loses_its_beginning(session: Session, reference: Decoder) -> None:
    ids = session.tokenizer.encode(TEXT)
    (found,) = Scorer(session, 16).scores([(ids[:40], ids[40:44])])
    assert found.log_likelihood == pytest.approx(
        expected(reference, ids[44 - 17 : 40], ids[40:44]), rel=LOG_LIKELIHOOD
    )
    (whole,) = Scorer(session, 16).scores([(ids[:3], ids[3:40])])
    assert whole.log_likelihood == pytest.approx(
        expected(reference, ids[40 - 17 : 40 - 16], ids[40 - 16 : 40]), rel=LOG_LIKELIHOOD
    )


def test_refusals(session: Session) -> None:
    with pytest.raises(InputError, match="max_length: found 5000, expected 1 to 1024"):
        Scorer(session, 5000)
    with pytest.raises(InputError, match="context: found none"):
        list(Scorer(session).scores([([], [1])]))


@given(st.integers(0, 60), st.integers(1, 20))
def test_windows_predict_every_token_once_and_look_back_as_far_as_they_may(
    count: int, longest: int
) -> None:
    ids = list(range(count))
    windows = list(rolling_windows(ids, -1, longest))
    assert [token for _, predicted in windows for token in predicted] == ids
    for before, predicted in windows:
        looked_at = len(before) + len(predicted) - 1
        assert before and looked_at <= longest
        # it has its full length, unless it begins with the prefix
        assert looked_at == longest or before[0] == -1


def test_answers_in_a_batch_are_those_of_each_alone(session: Session) -> None:
    prompts = [session.tokenizer.encode(text) for text in ("It was a bright", "She said that")]
    settings = Sampling(stop=("\n", " the"))
    together = list(answers(session, prompts, settings, 20, 1024, batch=2))
    alone = [next(answers(session, [ids], settings, 20, 1024, batch=1)) for ids in prompts]
    assert together == alone
    assert not any(" the" in text or "\n" in text for text in together)


def test_an_answer_in_a_chat_is_what_the_user_is_told(session: Session) -> None:
    tokenizer: Tokenizer = session.tokenizer
    prompt = tokenizer.encode_chat([{"role": "user", "content": "Who are you?"}])
    (found,) = answers(session, [prompt], Sampling(), 12, 1024, batch=1)
    with session.stream_text(prompt, Sampling(), max_new_tokens=12) as stream:
        assert found == "".join(stream)


def test_a_prompt_without_room_loses_its_beginning(session: Session) -> None:
    ids = session.tokenizer.encode(TEXT)
    found = list(answers(session, [ids], Sampling(stop_tokens=()), 8, 32, batch=1))
    assert found == list(answers(session, [ids[-25:]], Sampling(stop_tokens=()), 8, 32, batch=1))
