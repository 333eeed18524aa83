"""Answers of models without harmony: content, thoughts between tags, calls as JSON between tags."""

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.runtime import Tokenizer
from gptoss_onnx.serving.answers import AnswerItem, AnswerReader, answer_reader
from support.answer_checks import check_deltas, read
from support.tiny_package import byte_tokenizer

TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": [1, "é"]}}\n</tool_call>'
ARGUMENTS = '{"a": [1, "é"]}'


@pytest.fixture(scope="module", params=["letters", "words", "special"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """One that spells tags letter by letter, has a token for each, or leaves those out of texts."""
    backend = byte_tokenizer()
    if request.param == "words":
        backend.add_tokens([tokenizers.AddedToken(tag, normalized=False) for tag in TAGS])
    if request.param == "special":
        backend.add_special_tokens([tokenizers.AddedToken(tag, normalized=False) for tag in TAGS])
    return Tokenizer(backend, Path())


def reader(
    tokenizer: Tokenizer, prompt: str = "x", stop: tuple[str, ...] = (), tools: tuple[str, ...] = ()
) -> AnswerReader:
    return answer_reader(tokenizer, tokenizer.encode(prompt), stop, tools)


@pytest.mark.parametrize(
    ("said", "content", "reasoning"),
    [
        ("Hello 😀", "Hello 😀", ""),
        (" \n Hello\n", " \n Hello\n", ""),
        ("<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm."),
        ("\n<think>Hm.</think>Yes.\n", "Yes.\n", "Hm."),
        ("<think>\n\n</think>\n\nYes.", "Yes.", ""),
        ("<think>Hm. 2 < 3, </b>", "", "Hm. 2 < 3, </b>"),
        ("<think>a</think>\n<think>b</think>c", "c", "a\nb"),
        ("<think>a <think> b</think>c", "c", "a <think> b"),
        ("Use <think> and </think>.", "Use <think> and </think>.", ""),
        ("<thin", "<thin", ""),
        ("", "", ""),
        (CALL, CALL, ""),  # no tools were offered
    ],
)
def test_thoughts_are_told_from_content(
    tokenizer: Tokenizer, said: str, content: str, reasoning: str
) -> None:
    special = set(tokenizer.special_tokens)
    if special and "<think>" in content + reasoning:
        pytest.skip("a special token within a text is left out of it")
    answer, deltas, _ = read(reader(tokenizer), tokenizer.encode(said))
    assert (answer.content, answer.reasoning, answer.tool_calls) == (content, reasoning, ())
    check_deltas(answer, deltas)


def test_a_thought_may_begin_in_the_prompt(tokenizer: Tokenizer) -> None:
    for prompt in ("<think>", "user: why?<think>\n"):
        for said in (
            "Hm.</think>\nYes.",
            "\n<think>\nHm.\n</think>Yes.",
            "Hm.\n\n</think>\n\nYes.",
        ):
            answer, _, _ = read(reader(tokenizer, prompt), tokenizer.encode(said))
            assert (answer.reasoning, answer.content) == ("Hm.", "Yes.")
            assert answer.reasoning_tokens > 0
    answer, _, _ = read(reader(tokenizer, "<think>\n\n</think>\n\n"), tokenizer.encode("Yes."))
    assert (answer.reasoning, answer.content, answer.reasoning_tokens) == ("", "Yes.", 0)
    answer, _, _ = read(reader(tokenizer, "<think>"), tokenizer.encode("Hm. "))
    assert (answer.reasoning, answer.content) == ("Hm.", "")


def test_calls_are_read(tokenizer: Tokenizer) -> None:
    said = f"<think>Hm.</think>\n\nI look.\n{CALL}\n{CALL}"
    answer, deltas, _ = read(reader(tokenizer, tools=("f",)), tokenizer.encode(said))
    check_deltas(answer, deltas)
    first, second = answer.tool_calls
    assert (first.name, first.arguments, second.arguments) == ("f", ARGUMENTS, ARGUMENTS)
    assert first.id != second.id
    assert answer.items == (
        AnswerItem("reasoning", "Hm."),
        AnswerItem("content", "I look.\n"),
        AnswerItem("tool_call", call=first),
        AnswerItem("tool_call", call=second),
    )


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ('{"name": "f"}', [("f", "{}")]),
        ('{"arguments": {}, "name": "functions.f"}', [("f", "{}")]),
        ('{"name": "f", "parameters": {"a": 1}}', [("f", '{"a": 1}')]),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', [("f", '{"a": 1}')]),
        ('{"name": "f", "arguments": [1]}', [("f", "[1]")]),
        ('[{"name": "f", "arguments": {}}, {"name": "g"}]', [("f", "{}"), ("g", "{}")]),
        ('{"name": "g h"}', [("gh", "{}")]),
    ],
)
def test_calls_may_be_written_otherwise(
    tokenizer: Tokenizer, body: str, calls: list[tuple[str, str]]
) -> None:
    for end in ("</tool_call>", ""):
        said = tokenizer.encode(f"<tool_call>{body}{end}")
        answer, deltas, _ = read(reader(tokenizer, tools=("f",)), said)
        assert [(call.name, call.arguments) for call in answer.tool_calls] == calls
        assert answer.content == ""
        check_deltas(answer, deltas)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "{}",
        '{"name": 3}',
        "[3]",
        "[]",
        "f(1)",
        '{"name": "f"} and',
        "[" * 500,
        "\ud83d"[:0],
    ],
)
def test_what_is_no_call_is_content(tokenizer: Tokenizer, body: str) -> None:
    said = f"a <tool_call>{body}</tool_call> b"
    answer, deltas, _ = read(reader(tokenizer, tools=("f",)), tokenizer.encode(said))
    check_deltas(answer, deltas)
    assert answer.tool_calls == ()
    assert [item.text for item in answer.items] == [
        "a ",
        f"<tool_call>{body}</tool_call>",
        "b",
    ]


def test_stop_texts_act_on_content_alone(tokenizer: Tokenizer) -> None:
    said = f"<think>a STOP b</think>c ST{CALL}d STOP e"
    open_reader = reader(tokenizer, stop=("STOP",), tools=("f",))
    answer, deltas, _ = read(open_reader, tokenizer.encode(said.replace("é", "STOP")))
    check_deltas(answer, deltas)
    assert answer.reasoning == "a STOP b"
    assert answer.content == "c ST\nd "
    assert json.loads(answer.tool_calls[0].arguments) == {"a": [1, "STOP"]}


def test_a_blank_stop_ends_blank_text(tokenizer: Tokenizer) -> None:
    _, _, taken = read(reader(tokenizer, stop=("\n\n",), tools=("f",)), tokenizer.encode("\n" * 99))
    assert taken < 20


SOUP = st.lists(
    st.sampled_from([*TAGS, "<", "</", '{"name": "f"}', "a", " ", "\n", "é"]), max_size=30
)


@settings(deadline=None, max_examples=300)
@given(parts=SOUP, opens=st.booleans(), tools=st.booleans())
def test_nothing_but_tags_and_space_is_lost(
    tokenizer: Tokenizer, parts: list[str], opens: bool, tools: bool
) -> None:
    def letters(text: str) -> str:
        for tag in TAGS:
            text = text.replace(tag, "")
        return "".join(text.split())

    said = "".join(parts)
    prompt = "<think>" if opens else "x"
    open_reader = reader(tokenizer, prompt, tools=("f",) if tools else ())
    answer, deltas, _ = read(open_reader, tokenizer.encode(said))
    check_deltas(answer, deltas)
    text = "".join(item.text if item.call is None else '{"name": "f"}' for item in answer.items)
    assert letters(text) == letters(tokenizer.decode(tokenizer.encode(said)))
