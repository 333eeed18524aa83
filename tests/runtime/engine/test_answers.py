"""What an engine answers is what the session answers alone, to the last token."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gptoss_onnx.package import Package
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.engine import Engine, TokenLogprobs
from support.engine_sinks import Kept, asked, submitted
from support.fake_package import VOCAB

ENDLESS = Sampling(stop_tokens=())
WARM = Sampling(
    temperature=300, top_p=0.95, stop_tokens=(4,)
)  # the fake package's logits are large
QUESTIONS = [
    f"{question} {place}?"
    for question in ("What is the capital of", "Where is", "Tell me about")
    for place in ("France", "Japan", "Peru", "Kenya", "Norway", "Canada", "Egypt", "Chile")
]


def alone(
    session: Session, tokens: Sequence[int], sampling: Sampling, most: int
) -> tuple[list[int], str | None]:
    generation = session.generate(list(tokens), sampling, max_new_tokens=most)
    return list(generation), generation.finish_reason


@pytest.mark.parametrize("prefix_bytes", [0, 1 << 20])
@pytest.mark.parametrize("sampling", [ENDLESS, WARM], ids=["greedy", "seeded"])
def test_batched_answers_are_the_unbatched_ones(
    fake: Session, sampling: Sampling, prefix_bytes: int
) -> None:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, VOCAB, size).tolist() for size in rng.integers(1, 40, 16)]
    prompts += [[*prompt, 1, 2, 3] for prompt in prompts[:6]] + prompts[:4]
    settings = [replace(sampling, seed=seed) for seed in range(len(prompts))]
    lengths = rng.integers(1, 60, len(prompts)).tolist()
    with Engine(
        fake, slots=3, capacity=120, chunk=4, max_queue=99, prefix_bytes=prefix_bytes
    ) as engine:
        running = [
            submitted(engine, *each) for each in zip(prompts, settings, lengths, strict=True)
        ]
        for (sink, _), each in zip(
            running, zip(prompts, settings, lengths, strict=True), strict=True
        ):
            assert (sink.wait().tokens, sink.ends[0]) == alone(fake, *each)
            assert len(sink.ends) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "seeded"])
def test_24_conversations_8_at_a_time(demo_package: Package, temperature: float) -> None:
    """On the trained package, in harmony, with two turns each where the first is over."""
    with (
        Session.open(demo_package.folder, threads=1) as session,
        Engine(
            session, slots=8, capacity=512, chunk=32, max_queue=24, prefix_bytes=1 << 26
        ) as engine,
    ):
        encode = session.tokenizer.encode_chat
        first = [encode([{"role": "user", "content": text}]) for text in QUESTIONS]
        samplings = [
            Sampling(temperature=temperature, top_p=0.95, seed=seed) for seed in range(len(first))
        ]
        sinks = [
            submitted(engine, prompt, sampling, 20)[0]
            for prompt, sampling in zip(first, samplings, strict=True)
        ]
        second = [
            [*prompt, *sink.wait().tokens, *encode([{"role": "user", "content": "And then?"}])]
            for prompt, sink in zip(first, sinks, strict=True)
        ]
        again = [
            submitted(engine, prompt, sampling, 12)
            for prompt, sampling in zip(second, samplings, strict=True)
        ]
        for prompt, sampling, sink in zip(first, samplings, sinks, strict=True):
            assert sink.tokens == alone(session, prompt, sampling, 20)[0]
        for prompt, known, sampling, (sink, ticket) in zip(
            second, first, samplings, again, strict=True
        ):
            assert sink.wait().tokens == alone(session, prompt, sampling, 12)[0]
            assert ticket.cached_tokens > len(known)  # the first turn was not run again


def test_choices_of_one_prompt_share_its_prefill_and_have_their_own_seeds(fake: Session) -> None:
    prompt = list(range(17))
    sampling = replace(WARM, seed=5)
    with Engine(fake, slots=4, capacity=60, chunk=4, max_queue=8, prefix_bytes=0) as engine:
        choices = [submitted(engine, prompt, sampling, 20, index=index) for index in range(6)]
        for index, (sink, _) in enumerate(choices):
            seeded = replace(sampling, seed=5 + index)
            assert sink.wait().tokens == alone(fake, prompt, seeded, 20)[0]
    assert len({tuple(sink.tokens) for sink, _ in choices}) > 1
    assert [ticket.cached_tokens for _, ticket in choices] == [0] + 5 * [17]


class OnlyEven:
    """A constraint: the allowed token alternates between even and odd places."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def mask(self, logits: NDArray[np.float32]) -> None:
        logits[(np.arange(VOCAB) + len(self.accepted)) % 2 == 1] = -np.inf

    def accept(self, token: int) -> None:
        self.accepted.append(token)


def test_a_constraint_masks_each_token_and_hears_of_it(fake: Session) -> None:
    constraint, free, bound = OnlyEven(), Kept(), Kept()
    with Engine(fake, slots=2, capacity=60, chunk=4, max_queue=8, prefix_bytes=0) as engine:
        engine.submit(asked([1, 2, 3], free, max_new_tokens=9))
        engine.submit(asked([1, 2, 3], bound, max_new_tokens=9, constraint=constraint))
        bound.wait(), free.wait()
    assert [token % 2 for token in bound.tokens] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert constraint.accepted == bound.tokens
    assert free.tokens == alone(fake, [1, 2, 3], ENDLESS, 9)[0]


@pytest.mark.parametrize("masked", [False, True])
def test_log_probabilities_are_the_models_own(fake: Session, masked: bool) -> None:
    """Whatever temperature, bias and constraint make of the logits."""
    more: dict[str, Any] = {"constraint": OnlyEven()} if masked else {}
    with Engine(fake, slots=2, capacity=60, chunk=4, max_queue=8, prefix_bytes=0) as engine:
        sink, _ = submitted(engine, [7, 1], replace(WARM, seed=1), 5, logprobs=3, **more)
        plain, _ = submitted(engine, [7, 1], replace(WARM, seed=1), 5)
        sink.wait(), plain.wait()
    assert masked or sink.tokens == plain.tokens
    assert plain.logprobs == [None] * len(plain.tokens)
    logits = fake.score([7, 1, *sink.tokens])[1:-1].astype(np.float64)
    expected = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    for row, token, found in zip(expected, sink.tokens, sink.logprobs, strict=True):
        assert isinstance(found, TokenLogprobs)
        assert found.token == token
        assert found.logprob == pytest.approx(row[token])
        assert [value for _, value in found.top] == pytest.approx(sorted(row)[::-1][:3])
        assert [row[id_] for id_, _ in found.top] == pytest.approx([v for _, v in found.top])
