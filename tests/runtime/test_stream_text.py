"""Text as it is generated: whole characters, thoughts apart from answers, what ends a text, and
many turns.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import (
    Conversation,
    HarmonyDelta,
    Sampling,
    Session,
    Tokenizer,
    conversation,
)
from support.harmony_tokenizer import write_harmony_tokenizer
from support.said_package import LONGEST, write_said_package

VOCAB = 340
WHY = [{"role": "user", "content": "Why? 为什么"}]
THOUGHT = "<|channel|>analysis<|message|>User asks 为什么.<|end|><|start|>assistant"
ANSWER = THOUGHT + "<|channel|>final<|message|>Because 😀.<|return|>"
REPLY = {"role": "assistant", "content": "Because 😀.", "thinking": "User asks 为什么."}
TURN = [*WHY, REPLY, {"role": "user", "content": "And?"}]
SECOND = "<|channel|>final<|message|>So.<|return|>"
CALL = '<|channel|>commentary to=functions.tide <|constrain|>json<|message|>{"h": 3}<|call|>'
ENDLESS = "<|channel|>final<|message|>on and on"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.open(write_harmony_tokenizer(tmp_path_factory.mktemp("harmony")))


@pytest.fixture(scope="module")
def session(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with Session.open(
        said(tokenizer, tmp_path_factory.mktemp("said") / "package"), threads=1
    ) as opened:
        yield opened


def said(tokenizer: Tokenizer, folder: Path, **options: Any) -> Path:
    """Write a package that knows some chats and one text; `options` are of `write_said_package`."""
    chats = [
        (WHY, ANSWER),
        (TURN, SECOND),
        ([{"role": "user", "content": "tide"}], CALL),
        ([{"role": "user", "content": "on"}], ENDLESS),
        (
            [{"role": "user", "content": "both"}],
            "Hi.<|end|><|start|>user<|message|>And now I ask<|end|>",
        ),
        (
            [{"role": "user", "content": "bad"}],
            "<|channel|>final<|message|>x<|end|>and<|end|><|start|>more",
        ),
    ]
    scripts = [
        (tokenizer.encode_chat(messages), tokenizer.encode(answer)) for messages, answer in chats
    ]
    scripts.append((tokenizer.encode("Read 你"), tokenizer.encode("好 😀 the end<|end|>tail")))
    high = tokenizer.encode_chat(WHY, variables={"reasoning_effort": "high"})
    scripts.append((high, tokenizer.encode("<|channel|>final<|message|>High.<|return|>")))
    source = Path(tokenizer._folder)
    return write_said_package(
        folder, source, scripts, VOCAB, lost=tokenizer.encode("z")[0], **options
    )


def kinds(pieces: list[HarmonyDelta]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for piece in pieces:
        texts[piece.kind] = texts.get(piece.kind, "") + str(piece)
    return texts


def test_a_text_comes_in_whole_characters(session: Session) -> None:
    with session.stream_text("Read 你", max_new_tokens=14) as generation:
        pieces = list(generation)
    assert "".join(pieces).startswith("好 😀 the end")
    assert all("\ufffd" not in piece for piece in pieces)
    assert len(pieces) > 4
    assert (generation.finish_reason, len(generation.tokens)) == ("length", 14)
    assert generation.prefill_seconds > 0
    ids = session.tokenizer.encode("Read 你")
    assert "".join(session.stream_text(ids, max_new_tokens=14)) == "".join(pieces)


def test_thoughts_and_answer_have_their_kind(session: Session) -> None:
    generation = session.stream_text(WHY)
    pieces = list(generation)
    assert kinds(pieces) == {"reasoning": "User asks 为什么.", "content": "Because 😀."}
    assert generation.finish_reason == "stop"  # at <|return|>, which the package does not name
    assert [message.channel for message in generation.messages] == ["analysis", "final"]
    assert generation.tokens == session.tokenizer.encode(ANSWER)
    assert (
        "".join(map(str, session.stream_text(WHY, variables={"reasoning_effort": "high"})))
        == "High."
    )


def test_a_call_of_a_tool_ends_the_answer(session: Session) -> None:
    generation = session.stream_text([{"role": "user", "content": "tide"}])
    (piece, *rest) = generation
    assert (piece.kind, piece.recipient, piece.content_type) == (
        "tool_call",
        "functions.tide",
        "json",
    )
    assert str(piece) + "".join(map(str, rest)) == '{"h": 3}'
    assert generation.finish_reason == "stop"


def test_an_answer_that_ends_as_in_training_data_has_ended(session: Session) -> None:
    generation = session.stream_text([{"role": "user", "content": "bad"}])
    assert kinds(list(generation)) == {"content": "x"}
    assert generation.finish_reason == "stop"
    generation = session.stream_text([{"role": "user", "content": "both"}])
    assert kinds(list(generation)) == {"content": "Hi."}
    assert generation.finish_reason == "stop"


def test_stops(session: Session) -> None:
    def text(prompt: Any, **sampling: Any) -> tuple[str, str | None]:
        generation = session.stream_text(prompt, Sampling(**sampling), max_new_tokens=60)
        return "".join(map(str, generation)), generation.finish_reason

    assert text("Read 你", stop=("the",)) == ("好 😀 ", "stop")
    # A special token is no part of the text, but its spelling is a stop all the same.
    assert text("Read 你", stop=("<|end|>",)) == ("好 😀 the end", "stop")
    end = session.tokenizer.special_tokens["<|end|>"]
    assert text("Read 你", stop_tokens=(end,)) == ("好 😀 the end", "stop")
    ids = session.tokenizer.encode("Read 你")
    generation = session.generate(ids, Sampling(stop=("<|end|>",)), max_new_tokens=20)
    assert list(generation)[-1] == end
    assert generation.finish_reason == "stop"
    # In a chat stops are looked for in the answer, not in thoughts and headers.
    assert text(WHY, stop=("Be", "User")) == ("User asks 为什么.", "stop")
    assert text(WHY, stop=("analysis",))[0] == "User asks 为什么.Because 😀."
    with pytest.raises(InputError, match=r"holds the special token <\|end\|>.*give it alone"):
        text("Read 你", stop=("x<|end|>",))


def test_nothing_that_ends_a_text_is_told(
    session: Session, tokenizer: Tokenizer, tmp_path: Path, caplog: Any
) -> None:
    warning = "only the limit on new tokens ends this text"
    with caplog.at_level(logging.WARNING):
        list(session.stream_text(WHY))  # harmony's tokens end it
        list(session.stream_text("Read 你", Sampling(stop=("the",))))
        list(session.stream_text("Read 你", max_new_tokens=2))  # the caller chose the end
        assert warning not in caplog.text
        generation = session.stream_text("Read 你")
        list(generation)
    assert warning in caplog.text
    assert (generation.finish_reason, len(generation.tokens)) == ("length", 256)
    caplog.clear()
    with Session.open(said(tokenizer, tmp_path / "ended", ends=4), threads=1) as ended:
        list(ended.stream_text("Read 你"))
    assert warning not in caplog.text


def test_an_answer_has_room_to_think_and_never_more_than_the_model(session: Session) -> None:
    generation = session.stream_text([{"role": "user", "content": "on"}])
    prompt = generation.prompt_tokens
    list(generation)
    assert (generation.finish_reason, len(generation.tokens)) == (
        "length",
        min(4096, LONGEST + 1 - prompt),
    )
    with pytest.raises(
        InputError, match=f"expected at most {LONGEST}, the longest this model takes"
    ):
        session.stream_text([7] * (LONGEST + 1))


def test_wrong_prompts_are_named(session: Session) -> None:
    for prompt, message in (
        ("", "prompt: found no token in it"),
        ([], "messages: found none"),
        ([VOCAB], f"token 0 is {VOCAB}, expected 0 to {VOCAB - 1}"),
        (3, "messages: found int"),
        ([{"content": "x"}], r"messages\[0\].role: found None"),
    ):
        with pytest.raises(InputError, match=message):
            session.stream_text(prompt)  # type: ignore[call-overload]  # wrong on purpose


def test_leaving_early_frees_the_cache(session: Session) -> None:
    with session.stream_text("Read 你", max_new_tokens=9) as generation:
        next(generation)
    assert list(generation) == []
    assert generation.finish_reason is None


def test_a_conversation_keeps_what_turns_share(session: Session, tokenizer: Tokenizer) -> None:
    with Conversation(session) as talk:
        assert kinds(list(talk.ask("Why? 为什么")))["content"] == "Because 😀."
        # The answer is right only if the cache holds what the script's history says: thoughts left
        # out.
        assert "".join(map(str, talk.ask("And?"))) == "So."
        first, second = tokenizer.encode_chat(WHY), tokenizer.encode_chat(TURN)
        assert len(first) - 1 <= talk.reused < len(second)
        assert talk.undo() == "And?"
        assert talk.messages == TURN[:2]
        assert "".join(map(str, talk.ask("And?"))) == "So."
        assert "".join(map(str, talk.retry())) == "So."
        assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2
        talk.clear()
        assert kinds(list(talk.ask("Why? 为什么")))["reasoning"] == "User asks 为什么."
        with pytest.raises(InputError, match="found no message of the user's yet"):
            Conversation(session).undo()


def test_an_answer_left_early_is_kept_as_far_as_it_came(session: Session) -> None:
    with Conversation(session) as talk:
        answer = talk.ask("Why? 为什么")
        while not answer.content:
            next(answer)
        talk.undo()
        assert talk.messages == []
        answer = talk.ask("Why? 为什么")
        next(answer)
        assert answer.reasoning
        answer.close()
        # nothing of it was an answer: it is forgotten
        with pytest.raises(InputError, match="no message"):
            talk.undo()
        assert kinds(list(talk.ask("Why? 为什么")))["content"] == "Because 😀."


def test_a_cache_that_cannot_rewind_is_read_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Conversation(session) as talk:
        list(talk.ask("Why? 为什么"))
        assert talk._cache is not None
        lengths = talk._cache.lengths
        monkeypatch.setattr(type(talk._cache), "rewind_limit", property(lambda _: lengths))
        assert "".join(map(str, talk.ask("And?"))) == "So."
        assert talk.reused == 0


@pytest.mark.parametrize("reserve", [conversation.RESERVE, 8])
@pytest.mark.parametrize("target", ["demo_package", "ort_package"])
def test_turns_are_as_without_a_cache(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, target: str, reserve: int
) -> None:
    """On a real model, whose window layers forget: what cannot be rewound is read again."""
    monkeypatch.setattr(conversation, "RESERVE", reserve)
    package: Package = request.getfixturevalue(target)
    with (
        Session.open(package.folder, threads=1) as opened,
        Conversation(opened, max_new_tokens=60) as talk,
    ):

        def check(answer: conversation.Answer) -> None:
            said = "".join(map(str, answer))
            alone = opened.stream_text(answer.messages, max_new_tokens=60)
            assert said == "".join(map(str, alone))
            assert len(said) > 20

        reused = []
        for question in (
            "Tell me about Emma.",
            "And her sister?",
            "Continue: Mr. Darcy bowed, and left the room.",
        ):
            check(talk.ask(question))
            reused.append(talk.reused)
        talk.undo()
        talk.undo()
        check(talk.ask("Who is Mr. Elton?"))
        check(talk.retry())
        assert reused[0] == 0
        if reserve > 8:
            assert min(reused[1:]) > 30
            assert talk.reused > 30


def test_another_try_is_another_answer_and_repeats_with_the_seed(demo_package: Package) -> None:
    def answers(opened: Session) -> list[str]:
        with Conversation(opened, Sampling(temperature=1.5, seed=3), max_new_tokens=12) as talk:
            first = "".join(map(str, talk.ask("Tell me about Emma.")))
            return [first, "".join(map(str, talk.retry())), "".join(map(str, talk.retry()))]

    with Session.open(demo_package.folder, threads=1) as opened:
        found = answers(opened)
        assert len(set(found)) == 3
        assert answers(opened) == found
