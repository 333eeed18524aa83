"""Every header that a tree allows says, to the parser, what the tree says that it opens."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.runtime import HarmonyParser, Tokenizer
from gptoss_onnx.serving.constraints.headers import HeaderSpeller, HeaderTree, Opening
from support.harmony_tokenizer import write_harmony_tokenizer

DEMO = Path(__file__).parents[3] / "demo" / "checkpoint"
NAMES = ("get", "get_weather", "get_weather2", "x", "A-b_" + "c" * 20)
OPENINGS = [
    Opening("thoughts"),
    Opening("preamble"),
    Opening("answer"),
    *(Opening("call", name) for name in NAMES),
    Opening("builtin", "python"),
    Opening("builtin", "browser.search"),
]
CHANNELS = {
    "thoughts": ("analysis",),
    "preamble": ("commentary",),
    "answer": ("final",),
    "call": ("commentary", "analysis"),
    "builtin": ("commentary", "analysis"),
}


@pytest.fixture(scope="module", params=["demo", "harmony"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    if request.param == "demo":
        return Tokenizer.open(DEMO)
    return Tokenizer.open(write_harmony_tokenizer(tmp_path_factory.mktemp("harmony")))


def speller(tokenizer: Tokenizer) -> HeaderSpeller:
    assert tokenizer.harmony is not None
    return HeaderSpeller(tokenizer.harmony, tokenizer.encode_plain)


def ways(tree: HeaderTree) -> Iterator[tuple[list[int], Opening]]:
    """Yield every way through a tree and where it leads."""
    for token, place in tree.following.items():
        if isinstance(place, Opening):
            yield [token], place
        else:
            yield from (([token, *rest], opening) for rest, opening in ways(place))


@pytest.mark.parametrize("openings", [OPENINGS, *([opening] for opening in OPENINGS)], ids=str)
def test_headers_say_what_they_open(tokenizer: Tokenizer, openings: list[Opening]) -> None:
    text = tokenizer.encode_plain("{}")
    found = list(ways(speller(tokenizer).tree(openings)))
    assert {opening for _, opening in found} == set(openings)
    for header, opening in found:
        parser = HarmonyParser(tokenizer, [])
        for token in [*header, *text]:
            parser.push(token)
        parser.finish()
        (message,) = parser.messages
        assert message.role == "assistant"
        assert message.text == "{}"
        assert message.channel in CHANNELS[opening.kind]
        name = f"functions.{opening.name}" if opening.kind == "call" else opening.name
        assert message.recipient == (name or None)


def test_the_spellings_that_models_know_are_there(tokenizer: Tokenizer) -> None:
    tree = speller(tokenizer).tree([Opening("call", "get_weather")])
    known = [
        "<|channel|>commentary to=functions.get_weather <|constrain|>json",
        " to=functions.get_weather<|channel|>commentary <|constrain|>json",
        "<|channel|>commentary to=functions.get_weather",
        " to=functions.get_weather<|channel|>commentary json",
        "<|channel|>analysis to=functions.get_weather json",
    ]
    headers = [header for header, _ in ways(tree)]
    for said in known:
        if "<|constrain|>" not in said or "<|constrain|>" in tokenizer.special_tokens:
            assert tokenizer.encode(f"<|start|>assistant{said}<|message|>") in headers


def test_only_what_may_come_next_is_left(tokenizer: Tokenizer) -> None:
    place = speller(tokenizer).tree([Opening("answer")])
    logits = np.arange(3000, dtype=np.float32)
    place.mask(logits)
    assert tokenizer.harmony is not None
    assert np.flatnonzero(np.isfinite(logits)).tolist() == [tokenizer.harmony.start]
    assert logits[tokenizer.harmony.start] == tokenizer.harmony.start


def test_trees_do_not_grow_into_each_other(tokenizer: Tokenizer) -> None:
    spelled = speller(tokenizer)
    first = spelled.tree(OPENINGS)
    before = list(ways(first))
    spelled.tree(OPENINGS[2:])
    spelled.tree([Opening("call", "get_weather_of_tomorrow"), *OPENINGS])
    assert list(ways(first)) == before
