"""The fields of a request: what is read, what the response repeats, and what is refused."""

from typing import Any

import pytest

from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.fields import Fields
from gptoss_onnx.serving.responses.request import ResponseRequest, begun, read_request
from support.openai_types import check_response

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "name": "weather", "parameters": SCHEMA, "description": "d"}
FORMAT = {"type": "json_schema", "name": "n", "schema": SCHEMA}


def read(**fields: Any) -> ResponseRequest:
    return read_request(Fields({"input": "Hi", **fields}))


def test_a_text_alone_is_enough() -> None:
    request = read()
    assert request.items[0]["content"][0]["text"] == "Hi"
    assert request.stores and not request.streams and not request.truncates
    assert request.max_output_tokens is None
    assert request.logprobs is None and request.effort is None
    response = check_response(begun(request, "resp_1", "m", 5))
    assert response.status == "in_progress" and response.tools == [] and response.created_at == 5


def test_the_response_repeats_what_was_asked() -> None:
    choice = {"type": "function", "name": "weather"}
    given = {
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "metadata": {"k": "v"},
        "parallel_tool_calls": False,
        "previous_response_id": "resp_0",
        "prompt_cache_key": "p",
        "safety_identifier": "s",
        "temperature": 0.5,
        "tool_choice": choice,
        "top_logprobs": 3,
        "top_p": 0.25,
        "truncation": "auto",
        "user": "u",
    }
    request = read(**given, tools=[TOOL], text={"format": FORMAT}, reasoning={"effort": "low"})
    document = begun(request, "resp_1", "m", 5)
    check_response(document)
    assert {name: document[name] for name in given} == given
    assert document["tools"] == [{**TOOL, "strict": True}]
    assert document["text"]["format"] == {**FORMAT, "strict": True}
    assert document["reasoning"] == {"effort": "low", "summary": None}


def test_tools_and_formats_take_the_form_of_a_chat() -> None:
    request = read(tools=[TOOL], text={"format": FORMAT, "verbosity": "low"})
    function = {"name": "weather", "parameters": SCHEMA, "description": "d", "strict": True}
    assert request.tools.chat == [{"type": "function", "function": function}]
    schema = {"name": "n", "schema": SCHEMA, "strict": True}
    assert request.text_format.chat == {"type": "json_schema", "json_schema": schema}
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "weather"}],
    }
    other = {"type": "function", "name": "other"}
    request = read(tools=[TOOL, other], tool_choice=allowed)
    assert request.tool_choice.echo == allowed and len(request.tools.echo) == 2
    assert request.tool_choice.chat == "required" and len(request.tools.chat) == 1
    named = read(tools=[TOOL], tool_choice={"type": "function", "name": "weather"}).tool_choice
    assert named.chat == {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("fields", "logprobs"),
    [
        ({}, None),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"top_logprobs": 2}, 2),
        ({"include": ["reasoning.encrypted_content"]}, None),
    ],
)
def test_log_probabilities_are_asked_for_in_two_ways(
    fields: dict[str, Any], logprobs: int | None
) -> None:
    assert read(**fields).logprobs == logprobs


def test_null_and_unknown_fields_count_for_nothing() -> None:
    nothing = dict.fromkeys(["tools", "metadata", "text", "store", "background", "prompt", "user"])
    assert read(**nothing, new_field={"x": 1}).stores


@pytest.mark.parametrize(
    ("fields", "param", "found"),
    [
        ({"input": None}, "input", "found nothing"),
        ({"input": []}, "input", "found a list of 0 entries"),
        ({"background": True}, "background", "found true"),
        ({"conversation": "conv_1"}, "conversation", "conv_1"),
        ({"prompt": {"id": "p"}}, "prompt", "found an object"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "a b"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name", "weather"),
        ({"tools": [{**TOOL, "parameters": 3}]}, "tools[0].parameters", "found 3"),
        ({"tool_choice": "required"}, "tool_choice", "expected tools"),
        ({"tool_choice": "any"}, "tool_choice", "any"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "mcp"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name", "x"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "xml"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n"}}},
            "text.format.schema",
            "nothing",
        ),
        ({"text": {"verbosity": "loud"}}, "text.verbosity", "loud"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "huge"),
        ({"reasoning": {"summary": True}}, "reasoning.summary", "true"),
        ({"include": ["all"]}, "include[0]", "all"),
        ({"temperature": 2.5}, "temperature", "2.5"),
        ({"top_p": "1"}, "top_p", '"1"'),
        ({"max_output_tokens": 0}, "max_output_tokens", "found 0"),
        ({"top_logprobs": 21}, "top_logprobs", "21"),
        ({"truncation": "yes"}, "truncation", "yes"),
        ({"metadata": {"k": 1}}, "metadata.k", "found 1"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "64 characters"),
        ({"metadata": {f"{i}": "v" for i in range(17)}}, "metadata", "at most 16"),
        ({"previous_response_id": 5}, "previous_response_id", "found 5"),
        ({"store": "no"}, "store", "no"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(fields: dict[str, Any], param: str, found: str) -> None:
    with pytest.raises(ApiError) as refusal:
        read(**fields)
    error = refusal.value
    assert (error.status, error.param) == (400, param)
    assert found in error.message and len(error.message) < 400
