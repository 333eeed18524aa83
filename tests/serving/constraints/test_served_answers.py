"""The demo package, which knows nothing of JSON, answers and calls as a request wants."""

import json
from typing import Any

import jsonschema
import openai
import pytest

MODEL = "demo"
MESSAGES: list[Any] = [{"role": "user", "content": "Who came?"}]
SCHEMA = {
    "type": "object",
    "properties": {"who": {"enum": ["Anne", "Emma"]}, "days": {"type": "integer", "maximum": 30}},
    "required": ["who", "days"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "see", "parameters": SCHEMA}}


def asked(client: openai.OpenAI, **more: Any) -> Any:
    settings = {"temperature": 1, "seed": 3, "max_tokens": 150, **more}
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, **settings)


def test_answers_are_of_their_schema(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    answers = asked(client, response_format=wanted, n=4).choices
    assert len(answers) == 4
    for answer in answers:
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.message.content), SCHEMA)


def test_calls_are_forced(client: openai.OpenAI) -> None:
    chosen = {"type": "function", "function": {"name": "see"}}
    answer = asked(client, tools=[TOOL], tool_choice=chosen, parallel_tool_calls=False).choices[0]
    (call,) = answer.message.tool_calls
    assert call.function.name == "see"
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


def test_no_call_where_none_is_wanted(client: openai.OpenAI) -> None:
    answer = asked(client, tools=[TOOL], tool_choice="none", max_tokens=20).choices[0]
    assert answer.message.tool_calls is None
    assert answer.message.content


def test_a_schema_that_cannot_be_enforced_is_refused(client: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    with pytest.raises(openai.BadRequestError, match="Unimplemented keys") as caught:
        asked(client, response_format=wanted)
    assert caught.value.body["type"] == "invalid_request_error"
