"""A maker reads its tokenizer once, compiles a grammar once, and gives each choice its own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
import pytest
import tokenizers

from gptoss_onnx.errors import PackageError
from gptoss_onnx.runtime import Tokenizer
from gptoss_onnx.serving.constraints import ConstraintMaker, grammars
from support.constrained_server import ConstrainedServer
from support.harmony_tokenizer import write_harmony_tokenizer
from support.json_schemas import SCHEMAS


@pytest.fixture
def server(tmp_path: Path) -> ConstrainedServer:
    return ConstrainedServer(write_harmony_tokenizer(tmp_path))


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Count how often llguidance is asked for something; return the list that grows."""
    calls: list[int] = []
    theirs = getattr(llguidance, name)

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(1)
        return theirs(*args, **more)

    monkeypatch.setattr(grammars.llguidance, name, counted)
    return calls


def test_the_tokenizer_is_read_once_whoever_asks(
    server: ConstrainedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch, "LLTokenizer")
    assert server.constraint() is None
    assert not calls  # nothing has needed it
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(server.constraint, [SCHEMAS["flat"], SCHEMAS["enum"]] * 8))
    assert len(calls) == 1
    assert all(constraint is not None for constraint in made)


@pytest.fixture
def matchers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grammars that the server compiles."""
    compiled: list[int] = []

    class Counted:
        grammar_from_json_schema = llguidance.LLMatcher.grammar_from_json_schema

        def __new__(cls, *args: Any, **more: Any) -> Any:
            compiled.append(1)
            return llguidance.LLMatcher(*args, **more)

    class Library:
        LLMatcher = Counted
        LLTokenizer = llguidance.LLTokenizer
        LLParserLimits = llguidance.LLParserLimits

    monkeypatch.setattr(grammars, "llguidance", Library)
    return compiled


def test_a_grammar_is_compiled_once(server: ConstrainedServer, matchers: list[int]) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": SCHEMAS["ref"]}}]
    for _ in range(3):
        server.constraint(SCHEMAS["flat"], tools)
    assert len(matchers) == 2


def test_what_was_forgotten_is_compiled_again(
    server: ConstrainedServer, matchers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, "KEPT", 600)  # characters: one of the two
    server.maker = ConstraintMaker(server.tokenizer, server.vocab)
    first = server.constraint(SCHEMAS["flat"])
    server.constraint(SCHEMAS["enum"])
    server.constraint(SCHEMAS["flat"])
    assert len(matchers) == 3
    assert server.texts(server.say(first, 1))  # what was made goes on all the same
    assert len(matchers) == 3


def test_choices_do_not_disturb_each_other(server: ConstrainedServer) -> None:
    apart = [server.say(server.constraint(SCHEMAS["flat"]), seed) for seed in range(3)]
    constraints = [server.constraint(SCHEMAS["flat"]) for _ in range(3)]
    said: list[list[int]] = [[], [], []]
    for step in range(max(map(len, apart))):
        for place, constraint in enumerate(constraints):
            if step < len(apart[place]):
                logits = np.zeros(server.vocab, dtype=np.float32)
                assert constraint is not None
                constraint.mask(logits)
                assert np.isfinite(logits[apart[place][step]])
                constraint.accept(apart[place][step])
                said[place].append(apart[place][step])
    assert said == apart


def test_a_tokenizer_of_words_cannot_be_constrained(tmp_path: Path) -> None:
    words = tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")
    tokenizers.Tokenizer(words).save(str(tmp_path / "tokenizer.json"))
    maker = ConstraintMaker(Tokenizer.open(tmp_path), 8, (0,))
    with pytest.raises(
        PackageError, match=r"^tokenizer\.json: cannot be constrained \(.*\); export"
    ):
        maker.make({"type": "json_object"}, None, None, True, [1])


def test_stop_tokens_beyond_the_vocabulary_are_left_out(server: ConstrainedServer) -> None:
    maker = ConstraintMaker(server.tokenizer, server.vocab, (1, -1, 10**6))
    assert maker.make({"type": "json_object"}, None, None, True, server.prompt) is not None


def test_control_tokens_that_the_model_does_not_know_are_refused(
    server: ConstrainedServer,
) -> None:
    maker = ConstraintMaker(server.tokenizer, 8)
    with pytest.raises(PackageError, match="expected less than the model's vocabulary, 8"):
        maker.make({"type": "json_object"}, None, None, True, server.prompt)
