"""Models that would say something else answer and call, through the server, as a request wants."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from support.scripted_package import letter, write_scripted_package
from support.scripted_server import scripted_server

SCHEMA = {
    "type": "object",
    "properties": {"who": {"enum": ["Anne", "Emma"]}, "days": {"type": "integer", "maximum": 30}},
    "required": ["who", "days"],
    "additionalProperties": False,
}
WANTED: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
TOOL: Any = {"type": "function", "function": {"name": "see", "parameters": SCHEMA}}
NAMED: Any = {"type": "function", "function": {"name": "see"}}
ARGUMENTS = '{"who": "Anne", "days": 2}'
THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
CALL = "<|channel|>commentary to=functions.see <|constrain|>json<|message|>"
SCRIPTS = {
    "prose": "<|channel|>final<|message|>I would rather not.<|return|>",
    "json": f"{THOUGHT}<|channel|>final<|message|>{ARGUMENTS}<|return|>",
    "call": f"{THOUGHT}{CALL}{ARGUMENTS}<|call|>",
    "bad call": f"{CALL}days: two<|call|>",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    package = tmp_path_factory.mktemp("scripts") / "package"
    with (
        scripted_server(write_scripted_package(package, list(SCRIPTS.values()))) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def asked(client: openai.OpenAI, script: str, **more: Any) -> Any:
    """Return the answer of a model that would rather say a script."""
    messages: list[Any] = [{"role": "user", "content": letter(list(SCRIPTS).index(script))}]
    settings = {"temperature": 1, "seed": 3, "max_tokens": 400, **more}
    return client.chat.completions.create(model="gpt-oss", messages=messages, **settings).choices[0]


def test_prose_becomes_json(model: openai.OpenAI) -> None:
    answer = asked(model, "prose", response_format=WANTED)
    jsonschema.validate(json.loads(answer.message.content), SCHEMA)
    assert answer.finish_reason == "stop"


def test_what_is_right_is_left_alone(model: openai.OpenAI) -> None:
    answer = asked(model, "json", response_format=WANTED)
    assert answer.message.content == ARGUMENTS
    answer = asked(model, "call", response_format=WANTED, tools=[TOOL])
    (call,) = answer.message.tool_calls
    assert call.function.arguments == ARGUMENTS
    assert answer.finish_reason == "tool_calls"
    assert asked(model, "prose", tools=[TOOL]).message.content == "I would rather not."


@pytest.mark.parametrize("script", ["prose", "json", "bad call"])
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_calls_are_forced(model: openai.OpenAI, script: str, choice: Any) -> None:
    answer = asked(model, script, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    (call,) = answer.message.tool_calls
    assert call.function.name == "see"
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    assert answer.message.content is None


def test_arguments_are_enforced_where_calls_are_free(model: openai.OpenAI) -> None:
    for call in asked(model, "bad call", tools=[TOOL]).message.tool_calls:
        jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_no_call_where_none_is_wanted(model: openai.OpenAI) -> None:
    answer = asked(model, "call", tools=[TOOL], tool_choice="none")
    assert answer.message.tool_calls is None


def test_a_schema_that_cannot_be_enforced_is_refused(model: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    with pytest.raises(openai.BadRequestError, match="Unimplemented keys") as caught:
        asked(model, "json", response_format=wanted)
    body: Any = caught.value.body
    assert body["type"] == "invalid_request_error"


def test_the_demo_answers_in_json(client: openai.OpenAI) -> None:
    answers = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Who came?"}],
        response_format=WANTED,
        temperature=1,
        max_tokens=150,
        n=4,
    ).choices
    assert len(answers) == 4
    for answer in answers:
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.message.content or ""), SCHEMA)
