"""Sixty answers in harmony, twenty well-formed and forty not, as content, reasoning and calls."""

import random

import pytest

from gptoss_onnx.runtime import Tokenizer
from gptoss_onnx.serving.answers import answer_reader
from support.answer_checks import check_deltas, read
from support.harmony_answers import HarmonyCase, harmony_cases
from support.harmony_tokenizer import SPECIAL, write_harmony_tokenizer

CASES = harmony_cases()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.open(write_harmony_tokenizer(tmp_path_factory.mktemp("harmony")))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_is_read(tokenizer: Tokenizer, case: HarmonyCase) -> None:
    prompt = tokenizer.encode(case.prompt)
    reader = answer_reader(tokenizer, prompt, case.stop, case.tools)
    answer, deltas, _ = read(reader, tokenizer.encode(case.said))
    assert answer.content == case.content
    assert answer.reasoning == case.reasoning
    assert [(call.name, call.arguments) for call in answer.tool_calls] == case.calls
    check_deltas(answer, deltas)
    for call in answer.tool_calls:
        assert not any(spelling in call.name for spelling in SPECIAL)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_does_not_matter_how_words_are_split_into_tokens(
    tokenizer: Tokenizer, case: HarmonyCase
) -> None:
    """Models need not take the longest token; a letter may come byte by byte."""
    if case.counts_tokens:
        pytest.skip("a header without its control tokens ends after a number of tokens")
    draw = random.Random(case.name)
    for _ in range(3):
        tokens = split(tokenizer, case.said, draw)
        reader = answer_reader(tokenizer, tokenizer.encode(case.prompt), case.stop, case.tools)
        answer, deltas, _ = read(reader, tokens)
        assert (answer.content, answer.reasoning) == (case.content, case.reasoning)
        assert [(call.name, call.arguments) for call in answer.tool_calls] == case.calls
        check_deltas(answer, deltas)


def split(tokenizer: Tokenizer, text: str, draw: random.Random) -> list[int]:
    """Encode a text whose words are cut at random places."""
    special = set(tokenizer.special_tokens.values())
    tokens: list[int] = []
    for token in tokenizer.encode(text):
        word = tokenizer.decode([token])
        if token in special or len(word) < 2 or "\ufffd" in word or draw.random() < 0.5:
            tokens.append(token)
            continue
        place = draw.randrange(1, len(word))
        tokens += tokenizer.encode_plain(word[:place]) + tokenizer.encode_plain(word[place:])
    assert tokenizer.decode(tokens, skip_special_tokens=False) == text
    return tokens


def test_there_are_twenty_and_forty() -> None:
    assert sum(case.is_well_formed for case in CASES) == 20
    assert sum(not case.is_well_formed for case in CASES) == 40
    assert len({case.name for case in CASES}) == 60
    assert len({case.said for case in CASES}) == 60
