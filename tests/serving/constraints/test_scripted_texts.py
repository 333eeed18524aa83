"""What may be said at each place of an answer, token by token."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.runtime.engine.request import Constraint
from gptoss_onnx.serving.constraints import EnforcementError
from gptoss_onnx.serving.constraints.json_grammar import WHITESPACE_LIMIT
from support.constrained_server import PADDED, ConstrainedServer
from support.harmony_tokenizer import write_harmony_tokenizer
from support.json_schemas import SCHEMAS
from support.plain_tokenizer import END, write_plain_tokenizer

FINAL = "<|channel|>final<|message|>"
TOOLS = [{"type": "function", "function": {"name": "get", "parameters": SCHEMAS["flat"]}}]
TAG = "<tool_call>"


@pytest.fixture(scope="module")
def harmony(tmp_path_factory: pytest.TempPathFactory) -> ConstrainedServer:
    return ConstrainedServer(write_harmony_tokenizer(tmp_path_factory.mktemp("harmony")))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ConstrainedServer:
    """One whose tags are text."""
    return ConstrainedServer(write_plain_tokenizer(tmp_path_factory.mktemp("plain"), "text"))


def allowed(constraint: Constraint | None, vocab: int) -> set[int]:
    """Return the tokens that may come next."""
    assert constraint is not None
    logits = np.zeros(vocab, dtype=np.float32)
    constraint.mask(logits)
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


def said(server: ConstrainedServer, constraint: Constraint | None, ids: Sequence[int]) -> int:
    """Say tokens as long as they are allowed, and return how many were."""
    assert constraint is not None
    for place, token in enumerate(ids):
        if token not in allowed(constraint, server.vocab):
            return place
        constraint.accept(token)
    return len(ids)


def can_say(server: ConstrainedServer, text: str, **request: Any) -> bool:
    """Say whether a model may say all of a text; control tokens are spelled out in it."""
    ids = server.tokenizer.encode(text, add_special_tokens=False)
    return said(server, server.constraint(**request), ids) == len(ids)


def test_whitespace_is_bounded(harmony: ConstrainedServer) -> None:
    request = {"schema": SCHEMAS["flat"]}
    for space in (" ", "\n", "\t"):
        most = space * WHITESPACE_LIMIT
        assert can_say(harmony, f'{FINAL}{{{most}"city"{most}:{most}"x"', **request)
        for begin in ("{", '{"city"', '{"city":', '{"city":"x"', '{"city":"x",'):
            assert can_say(harmony, FINAL + begin + most, **request)
            assert not can_say(harmony, FINAL + begin + most + space, **request)
    assert not can_say(harmony, FINAL + " ", **request)
    assert not can_say(harmony, FINAL + '{"city":"x","days":1} ', **request)


def test_an_answer_ends_where_its_grammar_does(harmony: ConstrainedServer) -> None:
    tokens = harmony.tokenizer.harmony
    assert tokens is not None
    special = set(harmony.tokenizer.special_tokens.values())
    constraint = harmony.constraint(SCHEMAS["flat"])
    said(harmony, constraint, harmony.tokenizer.encode(FINAL))
    for token in harmony.tokenizer.encode_plain('{"city": "<|end|>", "days": 12}'):
        assert not allowed(constraint, harmony.vocab) & special
        assert said(harmony, constraint, [token]) == 1
    assert allowed(constraint, harmony.vocab) == {tokens.return_, tokens.end}


def test_a_number_may_end_and_go_on(harmony: ConstrainedServer) -> None:
    tokens = harmony.tokenizer.harmony
    assert tokens is not None
    constraint = harmony.constraint({"type": "integer", "minimum": 1, "maximum": 15})
    ids = [*harmony.tokenizer.encode(FINAL), *harmony.tokenizer.encode_plain("1")]
    assert said(harmony, constraint, ids) == len(ids)
    digits = {harmony.tokenizer.encode_plain(digit)[0] for digit in "012345"}
    assert allowed(constraint, harmony.vocab) == {tokens.return_, tokens.end} | digits


def test_a_call_ends_with_its_own_token(harmony: ConstrainedServer) -> None:
    tokens = harmony.tokenizer.harmony
    assert tokens is not None
    call = '<|channel|>commentary to=functions.get <|constrain|>json<|message|>{"city":"","days":1}'
    for parallel, ends in ((True, {tokens.call, tokens.end}), (False, {tokens.call})):
        constraint = harmony.constraint(tools=TOOLS, parallel=parallel)
        ids = harmony.tokenizer.encode(call)
        assert said(harmony, constraint, ids) == len(ids)
        assert allowed(constraint, harmony.vocab) == ends


def test_thoughts_are_free_and_end_with_their_message(harmony: ConstrainedServer) -> None:
    tokens = harmony.tokenizer.harmony
    assert tokens is not None
    text = set(harmony.tokenizer.text_tokens)
    for request in ({"schema": SCHEMAS["flat"]}, {"tools": TOOLS, "choice": "required"}):
        constraint = harmony.constraint(**request)
        said(harmony, constraint, harmony.tokenizer.encode("<|channel|>analysis<|message|>"))
        assert allowed(constraint, harmony.vocab) == text | {tokens.end}
        said(harmony, constraint, [*harmony.tokenizer.encode_plain("Hm. {"), tokens.end])
        assert allowed(constraint, harmony.vocab) == {tokens.start}


def test_after_thoughts_a_required_call_is_forced(harmony: ConstrainedServer) -> None:
    constraint = harmony.constraint(tools=TOOLS, choice="required", parallel=False)
    thoughts = harmony.tokenizer.encode("<|channel|>analysis<|message|>Hm.<|end|>")
    assert said(harmony, constraint, thoughts) == len(thoughts)
    for other in (FINAL, "<|channel|>commentary<|message|>", "<|channel|>analysis<|message|>"):
        ids = harmony.tokenizer.encode(f"<|start|>assistant{other}")
        again = harmony.constraint(tools=TOOLS, choice="required", parallel=False)
        assert said(harmony, again, [*thoughts, *ids]) < len(thoughts) + len(ids)


def test_no_padding_is_ever_allowed(harmony: ConstrainedServer, plain: ConstrainedServer) -> None:
    for server in (harmony, plain):
        for request in (
            {"schema": SCHEMAS["flat"]},
            {"tools": TOOLS},
            {"tools": TOOLS, "choice": "none"},
        ):
            constraint = server.constraint(**request)
            for token in server.say(server.constraint(**request), 3)[:-1]:
                assert max(allowed(constraint, server.vocab)) < server.vocab - PADDED
                assert constraint is not None
                constraint.accept(token)


def test_what_is_not_allowed_ends_the_answer(
    harmony: ConstrainedServer, plain: ConstrainedServer
) -> None:
    for server in (harmony, plain):
        constraint = server.constraint(SCHEMAS["flat"])
        assert constraint is not None
        with pytest.raises(EnforcementError, match=r"^constraint: "):
            constraint.accept(server.tokenizer.encode_plain("]")[0])


def test_calls_whose_tags_are_text(plain: ConstrainedServer) -> None:
    call = f'{TAG}\n{{"name": "get", "arguments": {{"city": "", "days": 1}}}}\n</tool_call>'
    assert can_say(plain, f"I look. {call} And again: {call}{END}", tools=TOOLS)
    assert can_say(plain, f"{call}\n{call}{END}", tools=TOOLS, choice="required")
    assert not can_say(plain, f"I look. {call}{END}", tools=TOOLS, choice="required")
    assert not can_say(plain, END, tools=TOOLS, choice="required")
    assert can_say(plain, f"{call}{END}", tools=TOOLS, parallel=False)
    for more in (f"\n{call}", "and"):
        assert not can_say(plain, call + more, tools=TOOLS, parallel=False)
    wrong = call.replace('"days": 1', '"days": "x"')
    for choice in ("auto", "required"):
        assert not can_say(plain, wrong, tools=TOOLS, choice=choice)
        assert not can_say(plain, call.replace("get", "other"), tools=TOOLS, choice=choice)


def test_no_call_whose_tags_are_text(plain: ConstrainedServer) -> None:
    assert can_say(plain, f"a < b, <tool_calls> and <tool{END}", tools=TOOLS, choice="none")
    assert not can_say(plain, f"a < b, {TAG}", tools=TOOLS, choice="none")
    assert plain.constraint() is None


def test_thoughts_that_the_prompt_has_begun(plain: ConstrainedServer) -> None:
    request = {"schema": SCHEMAS["flat"], "prompt": "<|im_start|>assistant\n<think>\n"}
    answer = '{"city": "x", "days": 1}'
    assert can_say(plain, f"Hm {{.\n</think>\n\n{answer}{END}", **request)
    assert not can_say(plain, f"Hm{END}", **request)
    assert not can_say(plain, f"Hm</think>{END}", **request)
    assert not can_say(plain, "Hm</think>\n\nWell", **request)
    assert not can_say(
        plain, f"<think>Hm</think>{answer}", schema=SCHEMAS["flat"]
    )  # it has no tags


@pytest.mark.parametrize("tags", ["special", "added"])
def test_thoughts_in_tags(tags: Any, tmp_path: Path) -> None:
    server = ConstrainedServer(write_plain_tokenizer(tmp_path, tags))
    answer = '{"city": "x", "days": 1}'
    assert can_say(server, f"<think>\nHm {{.\n</think>\n\n{answer}{END}", schema=SCHEMAS["flat"])
    assert can_say(server, f"{answer}{END}", schema=SCHEMAS["flat"])
    assert not can_say(server, f"<think>Hm{END}", schema=SCHEMAS["flat"])
    assert not can_say(server, f"Hm{answer}", schema=SCHEMAS["flat"])
    assert can_say(server, f"<think>Hm</think>Well.{END}", tools=TOOLS, choice="none")
    assert not can_say(server, f"Well. {TAG}", tools=TOOLS, choice="none")
