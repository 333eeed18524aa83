"""Answers of harmony models beyond the table: any tokens, any split, what items there are."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime import HarmonyParser, Tokenizer
from gptoss_onnx.serving.answers import AnswerDelta, AnswerItem, answer_reader
from support.answer_checks import check_deltas, read
from support.harmony_tokenizer import SPECIAL, write_harmony_tokenizer

VOCAB = 330
PROMPT = "<|start|>user<|message|>Why?<|end|><|start|>assistant"
NEXT = "<|end|><|start|>assistant"
CONTROL = st.sampled_from(range(len(SPECIAL)))
WORDS = st.sampled_from(
    [
        *["assistant", "analysis", " to=", "functions.f", "final", "json", " ", "é😀", "user"],
        *["commentary", "<|end|>", "{}", "python", "\n", "functions.", "tool"],
    ]
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.open(write_harmony_tokenizer(tmp_path_factory.mktemp("harmony")))


@settings(deadline=None, max_examples=500)
@given(data=st.data())
def test_no_token_is_lost_and_none_raises(tokenizer: Tokenizer, data: st.DataObject) -> None:
    soup: list[int] = []
    for part in data.draw(st.lists(CONTROL | WORDS | st.integers(0, 2 * VOCAB), max_size=60)):
        if isinstance(part, str):
            soup += tokenizer.encode_plain(part)
        else:
            soup.append(part)
    prompt = tokenizer.encode(
        data.draw(
            st.sampled_from(
                ["", PROMPT, "<|start|>assistant<|channel|>final<|message|>", "x<|call|><|start|>"]
            )
        )
    )
    reader = answer_reader(tokenizer, prompt, (), ["f"])
    answer, deltas, taken = read(reader, soup)
    check_deltas(answer, deltas)
    parser = HarmonyParser(tokenizer, prompt)
    for token in soup[:taken]:
        parser.push(token)
    parser.finish()
    # What the parser reads, which loses no token, is what the answer says, message by message; but
    # what the model says for somebody else ends it.
    messages = list(parser.messages)
    for place, message in enumerate(messages):
        if message.kind == "other" and any(
            m.text or m.kind == "tool_call" for m in messages[:place]
        ):
            del messages[place:]
            break
    expected = [m.text for m in messages if m.text and m.kind != "tool_call"]
    assert [item.text for item in answer.items if item.call is None] == expected
    calls = [m.text or "{}" for m in messages if m.kind == "tool_call"]
    assert [call.arguments for call in answer.tool_calls] == calls
    for call in answer.tool_calls:
        assert call.name
        assert not set(call.name) & set("<|> ")
    thoughts = [len(m.tokens) for m in messages if m.kind == "reasoning"]
    assert answer.reasoning_tokens == sum(thoughts)


def test_items_are_in_the_order_of_the_messages(tokenizer: Tokenizer) -> None:
    said = f"<|channel|>analysis<|message|>a{NEXT}<|channel|>commentary<|message|>b{NEXT}"
    said += f" to=functions.f<|channel|>commentary json<|message|>{{}}{NEXT}"
    said += f"<|channel|>analysis<|message|>c{NEXT}<|channel|>final<|message|>d<|return|>"
    answer, deltas, _ = read(answer_reader(tokenizer, []), tokenizer.encode(said))
    call = answer.tool_calls[0]
    assert answer.items == (
        AnswerItem("reasoning", "a"),
        AnswerItem("content", "b", is_preamble=True),
        AnswerItem("tool_call", call=call),
        AnswerItem("reasoning", "c"),
        AnswerItem("content", "d"),
    )
    assert (answer.content, answer.reasoning) == ("b\nd", "a\nc")
    between = [delta for delta in deltas if delta.item < 0]
    assert between == [AnswerDelta("reasoning", "\n"), AnswerDelta("content", "\n")]


def test_a_call_is_named_before_its_arguments_come(tokenizer: Tokenizer) -> None:
    header = tokenizer.encode("<|channel|>commentary to=functions.f <|constrain|>json<|message|>")
    reader = answer_reader(tokenizer, [], (), ["f"])
    *before, (named,) = [reader.push(token) for token in header]
    assert not any(before)
    assert (named.kind, named.call, named.name, named.text) == ("tool_call", 0, "f", "")
    assert named.id.startswith("call_")
    pieces = [reader.push(token) for token in tokenizer.encode('{"a": 1}<|call|>')]
    assert "".join(delta.text for piece in pieces for delta in piece) == '{"a": 1}'
    assert sum(map(bool, pieces)) > 3  # streamed
    assert reader.done


def test_ids_of_calls_differ(tokenizer: Tokenizer) -> None:
    said = " to=functions.f<|channel|>commentary<|message|>{}<|call|>"
    answers = [read(answer_reader(tokenizer, []), tokenizer.encode(said))[0] for _ in range(3)]
    assert len({answer.tool_calls[0].id for answer in answers}) == 3


def test_it_is_done_where_the_answer_is(tokenizer: Tokenizer) -> None:
    def taken(said: str, stop: Sequence[str] = ()) -> int:
        return read(answer_reader(tokenizer, [], stop), tokenizer.encode(said))[2]

    for said in (
        "<|channel|>final<|message|>x<|return|>",
        "<|channel|>final<|message|>x<|end|>",
        "<|channel|>analysis<|message|>x<|end|><|return|>",
        " to=functions.f<|channel|>commentary<|message|><|call|>",
        "<|channel|>final<|message|>x<|endoftext|>",
        "<|channel|>final<|message|>x<|start|>user<|message|>",
        " to=functions.f<|message|><|end|><|start|>functions.f to=assistant<|message|>",
    ):
        assert taken(said + "and more") == len(tokenizer.encode(said)), said
    stopped = "<|channel|>final<|message|>a."
    assert taken(stopped + "bc", (".",)) == len(tokenizer.encode(stopped))
    reader = answer_reader(tokenizer, [])
    for token in tokenizer.encode("<|channel|>analysis<|message|>x<|end|>"):
        reader.push(token)
    assert not reader.done  # it goes on


def test_who_speaks_in_another_role_at_once_is_heard(tokenizer: Tokenizer) -> None:
    said = tokenizer.encode("<|start|>user<|message|>Hello<|end|>")
    assert read(answer_reader(tokenizer, []), said)[0].content == "Hello"


def test_an_answer_can_be_looked_at_while_it_comes(tokenizer: Tokenizer) -> None:
    reader = answer_reader(tokenizer, [])
    assert reader.answer().content == ""
    for token in tokenizer.encode("<|channel|>final<|message|>the cat sat"):
        reader.push(token)
    assert "the cat sat".startswith(reader.answer().content)
    assert reader.answer().content


def test_wrong_stops_are_refused_at_once(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="stop: found 'ab', expected a sequence of texts"):
        answer_reader(tokenizer, [], "ab")


def test_a_tokenizer_that_fails_ends_the_answer(tokenizer: Tokenizer) -> None:
    class Failing(Tokenizer):
        def decode(self, ids: object, skip_special_tokens: bool = True) -> str:
            raise PackageError("tokenizer.json: cannot decode this")

    failing = Failing(tokenizer._backend, Path())
    reader = answer_reader(failing, [])
    for token in tokenizer.encode("<|channel|>final<|message|>x<|return|>"):
        reader.push(token)
    assert reader.finish() == []
    assert reader.done
    assert isinstance(reader.problem, PackageError)
