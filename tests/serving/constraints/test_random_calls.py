"""Whatever a model says, its calls have arguments of their schema, and it calls as it is told."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime import HarmonyParser
from support.constrained_server import ConstrainedServer
from support.harmony_tokenizer import write_harmony_tokenizer
from support.json_schemas import SCHEMAS
from support.plain_tokenizer import Tags, write_plain_tokenizer

DEMO = Path(__file__).parents[3] / "demo" / "checkpoint"
SEEDS = range(6)
PARAMETERS = {
    "get_weather": SCHEMAS["flat"],
    "get_weather_of": SCHEMAS["recursive"],
    "now": SCHEMAS["empty"],
    "Draw-2": SCHEMAS["ref"],
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in PARAMETERS.items()
    if name != "now"
] + [{"type": "function", "function": {"name": "now"}}]
ANSWER = SCHEMAS["enum"]
_CALL = re.compile(r"\s*<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)


@pytest.fixture(scope="module", params=["demo", "harmony", "special", "added"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ConstrainedServer:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "harmony":
        write_harmony_tokenizer(folder)
    elif request.param in ("special", "added"):
        tags: Tags = request.param
        write_plain_tokenizer(folder, tags)
    return ConstrainedServer(DEMO if request.param == "demo" else folder)


def answer(server: ConstrainedServer, seed: int, **request: Any) -> tuple[list[str], list[str]]:
    """Return the names of the functions that a random model calls, their arguments being checked,
    and its texts.
    """
    said = server.say(server.constraint(tools=TOOLS, **request), seed)
    if server.tokenizer.harmony is None:
        return of_plain(server, said)
    messages = server.messages(said)
    names = []
    for message in messages:
        assert message.kind in ("reasoning", "content", "tool_call")
        if message.kind == "tool_call":
            assert message.recipient is not None
            names.append(message.recipient.removeprefix("functions."))
            jsonschema.validate(json.loads(message.text), PARAMETERS[names[-1]])
    return names, [message.text for message in messages if message.kind == "content"]


def of_plain(server: ConstrainedServer, said: list[int]) -> tuple[list[str], list[str]]:
    thought = server.tokenizer.added_tokens["</think>"]
    begin = said.index(thought) + 1 if thought in said else 0
    told = [token for token in said[begin:] if token not in server.stops]
    text = server.tokenizer.decode(told, skip_special_tokens=False)
    names = []
    for match in _CALL.finditer(text):
        call = json.loads(match[1])
        assert call.keys() == {"name", "arguments"}
        names.append(call["name"])
        jsonschema.validate(call["arguments"], PARAMETERS[call["name"]])
    rest = _CALL.sub("", text)
    assert "<tool_call>" not in rest
    return names, [rest] if rest.strip() or not names else []


def test_required_always_calls(server: ConstrainedServer) -> None:
    for seed in SEEDS:
        names, _ = answer(server, seed, choice="required")
        assert names


def test_a_named_function_is_the_only_one(server: ConstrainedServer) -> None:
    for choice in (
        {"type": "function", "function": {"name": "get_weather"}},
        {"type": "function", "name": "get_weather"},  # as in responses
    ):
        for seed in SEEDS:
            names, _ = answer(server, seed, choice=choice)
            assert set(names) == {"get_weather"}


def test_none_never_calls(server: ConstrainedServer) -> None:
    for seed in SEEDS:
        names, texts = answer(server, seed, choice="none")
        assert names == []
        assert texts


def test_one_call_where_several_are_not_wanted(server: ConstrainedServer) -> None:
    for seed in SEEDS:
        names, texts = answer(server, seed, choice="required", parallel=False)
        assert len(names) == 1
        assert texts == []


def test_auto_calls_or_answers(server: ConstrainedServer) -> None:
    found = [answer(server, seed, choice="auto") for seed in range(20)]
    assert any(names for names, _ in found)
    assert any(texts for _, texts in found)
    assert any(len(names) > 1 for names, _ in found)


def test_an_answer_beside_tools_is_of_its_schema(server: ConstrainedServer) -> None:
    found = [answer(server, seed, schema=ANSWER, choice="auto") for seed in range(20)]
    texts = [text for _, texts in found for text in texts]
    assert any(names for names, _ in found)
    assert texts
    for text in texts:
        jsonschema.validate(json.loads(text), ANSWER)


def test_allowed_tools_are_the_only_ones(server: ConstrainedServer) -> None:
    some = [{"type": "function", "function": {"name": name}} for name in ("now", "Draw-2")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": some}}
    for seed in SEEDS:
        names, _ = answer(server, seed, choice=choice)
        assert set(names) <= {"now", "Draw-2"}
        assert names


BEGUN = "<|start|>user<|message|>x<|end|><|start|>assistant<|channel|>final"


@pytest.mark.parametrize("rest", ["", "<|message|>", '<|message|>{"unit":'])
def test_a_message_that_the_prompt_has_begun_goes_on(rest: str) -> None:
    server = ConstrainedServer(DEMO)
    prompt = server.tokenizer.encode(BEGUN + rest)
    said = server.say(server.constraint(ANSWER, prompt=BEGUN + rest), 1)
    parser = HarmonyParser(server.tokenizer, prompt)
    for token in said:
        parser.push(token)
    begun = rest.removeprefix("<|message|>")
    jsonschema.validate(json.loads(begun + parser.messages[0].text), ANSWER)


def test_a_prompt_that_has_begun_what_is_forbidden_is_refused() -> None:
    server = ConstrainedServer(DEMO)
    for wanted, rest in (
        ({"tools": TOOLS, "choice": "required"}, ""),
        ({"schema": ANSWER}, "<|message|>["),
    ):
        with pytest.raises(InputError, match="prompt: it begins a message that response_format"):
            server.constraint(**wanted, prompt=BEGUN + rest)
