"""The harmony parser: well-formed answers as openai-harmony reads them, and malformed ones that
lose nothing.
"""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import HarmonyDelta, HarmonyMessage, HarmonyParser, Tokenizer
from support.harmony_tokenizer import SPECIAL, is_text_of, write_harmony_tokenizer

VOCAB = 330


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.open(write_harmony_tokenizer(tmp_path_factory.mktemp("harmony")))


def parse(
    tokenizer: Tokenizer,
    said: str | Sequence[int],
    prompt: str | None = None,
    stop: Sequence[str] = (),
) -> tuple[HarmonyMessage, ...]:
    """Parse, and check what holds for any input."""
    ids = tokenizer.encode(said) if isinstance(said, str) else list(said)
    parser = HarmonyParser(tokenizer, None if prompt is None else tokenizer.encode(prompt), stop)
    deltas: list[HarmonyDelta] = []
    for token in ids:
        deltas += parser.push(token)
    deltas += parser.finish()
    messages = parser.messages
    assert [token for message in messages for token in message.tokens] == ids
    assert all(delta.text for delta in deltas)
    for place, message in enumerate(messages):
        mine = [delta for delta in deltas if delta.message == place]
        assert "".join(delta.text for delta in mine) == message.text
        for delta in mine:
            assert (delta.role, delta.channel, delta.recipient, delta.content_type, delta.kind) == (
                message.role,
                message.channel,
                message.recipient,
                message.content_type,
                message.kind,
            )
    assert all(delta.message < len(messages) for delta in deltas)
    return messages


def seen(messages: Sequence[HarmonyMessage]) -> list[tuple[str | None, ...]]:
    return [(m.role, m.channel, m.recipient, m.content_type, m.text, m.end) for m in messages]


LONG = "One two three four five six seven eight nine ten"
THOUGHT = "<|channel|>analysis<|message|>x"
BOTH = [("analysis", "x"), ("final", "y")]


def test_thoughts_and_answer_come_apart(tokenizer: Tokenizer) -> None:
    said = "<|channel|>analysis<|message|>User asks 为什么.<|end|><|start|>assistant"
    said += "<|channel|>final<|message|>Because 😀.<|return|>"
    messages = parse(tokenizer, said, "<|start|>user<|message|>Why?<|end|><|start|>assistant")
    assert seen(messages) == [
        ("assistant", "analysis", None, None, "User asks 为什么.", "<|end|>"),
        ("assistant", "final", None, None, "Because 😀.", "<|return|>"),
    ]
    assert [message.kind for message in messages] == ["reasoning", "content"]
    # without a prompt the answer begins after <|start|>assistant
    assert seen(parse(tokenizer, said)) == seen(messages)


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.weather <|constrain|>json",
        " to=functions.weather<|channel|>commentary <|constrain|>json",
        " to=functions.weather<|channel|>commentary json",
        "<|channel|>commentary to=functions.weather json",
        "<|channel|>commentary <|constrain|>json to=functions.weather",
        "commentary to=functions.weather json",  # the control token is missing
        "<|channel|>commentary to= functions.weather json",
        "<|channel|>commentary to=functions.weather<|channel|>commentary <|constrain|>json",
        "<|channel|>commentaryto=functions.weather json",
        "<|start|>functions.weather<|channel|>commentary json",  # no result: not to the assistant
    ],
)
def test_tool_calls_name_their_recipient(tokenizer: Tokenizer, header: str) -> None:
    *_, message = parse(tokenizer, header + '<|message|>{"city": "Köln"}<|call|>')
    said = ("assistant", "commentary", "functions.weather", "json", '{"city": "Köln"}', "<|call|>")
    assert seen([message]) == [said]
    assert message.kind == "tool_call"


def test_what_the_prompt_began_goes_on(tokenizer: Tokenizer) -> None:
    prompt = "<|start|>user<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>"
    (message,) = parse(tokenizer, "Yes.<|end|>", prompt)
    assert seen([message]) == [("assistant", "final", None, None, "Yes.", "<|end|>")]
    (message,) = parse(tokenizer, "no.<|return|>", prompt + "I say ")
    assert message.text == "no."
    (message,) = parse(tokenizer, "sis<|message|>hm<|end|>", "<|start|>assistant<|channel|>analy")
    assert (message.channel, message.text) == ("analysis", "hm")
    (message,) = parse(tokenizer, "plain words of a model that answers nobody", "no harmony at all")
    assert (message.kind, message.text) == ("content", "plain words of a model that answers nobody")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        # No <|message|>: what follows the channel is the text.
        ("<|channel|>final Hello there<|end|>", [("final", "Hello there")]),
        (
            '<|channel|>commentary to=functions.f <|constrain|>json{"a": 1}<|call|>',
            [("commentary", '{"a": 1}')],
        ),
        # No header at all.
        ("Hello.<|return|>", [(None, "Hello.")]),
        ("Hello", [(None, "Hello")]),
        (LONG, [(None, LONG)]),
        # Words nobody knows in a header.
        ("<|channel|>final gibberish of sorts<|message|>x<|end|>", [("final", "x")]),
        ("<|channel|>musings<|message|>x<|end|>", [("musings", "x")]),
        # A channel that is not quite one, or stands elsewhere.
        ("<|channel|>analysis:<|message|>x<|end|>", [("analysis", "x")]),
        ("<|channel|>analysis<|channel|><|message|>x<|end|>", [("analysis", "x")]),
        ("<|channel|>commentary to=final<|message|>x<|end|>", [("final", "x")]),
        (THOUGHT + "<|end|><|start|>final<|message|>y", BOTH),
        # Text after the end, with and without a header.
        ("<|channel|>final<|message|>x<|end|>more words", [("final", "x"), (None, "more words")]),
        (THOUGHT + "<|end|>users can", [("analysis", "x"), (None, "users can")]),
        (THOUGHT + "<|end|>assistant", [("analysis", "x"), (None, "")]),
        (THOUGHT + "<|end|>assistant<|channel|>final<|message|>y", BOTH),
        (THOUGHT + "<|end|><|channel|>final<|message|>y", BOTH),
        ("<|channel|>analysis<|message|>x<|end|><|message|>y", [("analysis", "x"), (None, "y")]),
        # No end.
        (THOUGHT + "<|start|>assistant<|channel|>final<|message|>y", BOTH),
        (THOUGHT + "<|channel|>final<|message|>y", BOTH),
        # The tokens end in a header.
        ("<|channel|>analysis<|message|>x<|end|><|start|>", [("analysis", "x"), (None, "")]),
        (
            "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>fin",
            [("analysis", "x"), ("fin", "")],
        ),
        (" to=functions.we", [(None, "")]),
        # Control tokens twice, or where they mean nothing.
        (
            "<|channel|><|channel|>final<|message|><|message|>x<|end|><|end|><|return|>",
            [("final", "x")],
        ),
        ("<|channel|>final<|message|>a<|constrain|>b<|reserved_9|>c<|end|>", [("final", "abc")]),
        ("<|end|>", [(None, "")]),
        ("<|endoftext|>", [(None, "")]),
    ],
)  # fmt: skip
def test_malformed_answers_lose_nothing(
    tokenizer: Tokenizer, said: str, expected: list[tuple[str | None, str]]
) -> None:
    assert [(message.channel, message.text) for message in parse(tokenizer, said)] == expected


def test_a_header_without_end_becomes_text_soon(tokenizer: Tokenizer) -> None:
    """Else a model that leaves out `<|message|>` would seem to say nothing."""
    for header in ("", "<|channel|>final", "<|channel|>"):
        parser = HarmonyParser(tokenizer)
        ids = tokenizer.encode(header + " 你好" * 40)
        first = next(count for count, token in enumerate(ids) if parser.push(token))
        assert first < 72
        assert "\ufffd" not in parser.messages[0].text


def test_another_speaker_is_not_the_answer(tokenizer: Tokenizer) -> None:
    messages = parse(
        tokenizer, "<|channel|>final<|message|>x<|end|><|start|>user<|message|>And now I ask<|end|>"
    )
    assert [(message.role, message.kind) for message in messages] == [
        ("assistant", "content"),
        ("user", "other"),
    ]
    (message,) = parse(
        tokenizer, "<|start|>functions.f to=assistant<|channel|>commentary<|message|>3<|end|>", "x"
    )
    assert (message.role, message.recipient, message.kind) == ("functions.f", "assistant", "other")


def test_nobody_is_called_who_is_no_tool(tokenizer: Tokenizer) -> None:
    for name in ("assistant", "user", "all"):
        (message,) = parse(tokenizer, f"<|channel|>final to={name}<|message|>x<|end|>")
        assert message.kind == "content"


def test_stop_texts_end_the_answer_but_not_the_thoughts(tokenizer: Tokenizer) -> None:
    said = (
        "<|channel|>analysis<|message|>a STOP b<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>e STOP f<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.f<|message|>g STOP h<|end|>"
        "<|start|>assistant<|channel|>final<|message|>c STOP d<|return|>"
    )
    parser = HarmonyParser(tokenizer, stop=("STOP",))
    for token in tokenizer.encode(said):
        parser.push(token)
        if parser.stopped:
            break
    texts = [message.text for message in parser.messages]
    assert texts == ["a STOP b", "e STOP f", "g STOP h", "c "]
    with pytest.raises(InputError, match="stop: found 'abc', expected a sequence of texts"):
        HarmonyParser(tokenizer, stop="abc")


CONTROL = st.sampled_from(range(len(SPECIAL)))
WORDS = st.sampled_from(
    ["assistant", "analysis", " to=", "functions.f", "final", "json", " ", "é😀", "user", "\n"]
)


def test_a_control_token_may_break_a_character(tokenizer: Tokenizer) -> None:
    begin = tokenizer.special_tokens["<|message|>"]
    first, second = tokenizer.encode_plain("¡")
    (message,) = parse(tokenizer, [first, begin, second])
    assert message.text == "\ufffd"
    assert is_text_of(message.text, tokenizer.decode(message.tokens))


@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_any_tokens_are_read_without_an_error_or_a_loss(
    tokenizer: Tokenizer, data: st.DataObject
) -> None:
    soup: list[int] = []
    for part in data.draw(st.lists(CONTROL | WORDS | st.integers(0, 2 * VOCAB), max_size=60)):
        soup += tokenizer.encode(part) if isinstance(part, str) else [part]
    prompts = st.none() | st.sampled_from(
        ["", "<|start|>assistant", "<|start|>assistant<|channel|>final<|message|>"]
    )
    messages = parse(tokenizer, soup, data.draw(prompts))
    # No text but that of its own tokens; spellings of control tokens are not among it.
    for message in messages:
        assert is_text_of(message.text, tokenizer.decode(message.tokens))


@settings(deadline=None, max_examples=200)
@given(
    texts=st.lists(
        st.tuples(st.sampled_from(["analysis", "commentary", "final"]), st.text(max_size=20)),
        max_size=4,
    )
)
def test_text_of_well_formed_messages_is_whole(
    tokenizer: Tokenizer, texts: list[tuple[str, str]]
) -> None:
    plain = [tokenizer.encode_plain(text) for _, text in texts]
    ids: list[int] = []
    for (channel, _), text in zip(texts, plain, strict=True):
        ids += [
            *tokenizer.encode(f"<|start|>assistant<|channel|>{channel}<|message|>"),
            *text,
            tokenizer.special_tokens["<|end|>"],
        ]
    assert [(message.channel, message.text) for message in parse(tokenizer, ids, "")] == texts


def test_the_work_for_a_token_does_not_grow(tokenizer: Tokenizer) -> None:
    class Counting:
        harmony, special_tokens, work = tokenizer.harmony, tokenizer.special_tokens, 0

        def decode(self, ids: Sequence[int]) -> str:
            self.work += 1 + len(ids)
            return tokenizer.decode(ids)

    draw = random.Random(3)
    for soup in (
        [draw.randrange(VOCAB) for _ in range(4000)],
        [len(SPECIAL) + 200] * 4000,
        [0] * 4000,
    ):
        counting = Counting()
        parser = HarmonyParser(counting, [])
        work = []
        for token in soup:
            before = counting.work
            parser.push(token)
            work.append(counting.work - before)
        assert max(work) < 1000
        assert sum(work[-1000:]) < 1.5 * sum(work[1000:2000]) + 1000
