"""Fields of a request: what they want enforced, and what is wrong with them in one line."""

import json
import re
from typing import Any

import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.constraints.schemas import (
    BYTES_LIMIT,
    BYTES_TOGETHER,
    DEPTH_LIMIT,
    TEXT_LIMIT,
    JsonSchema,
)
from gptoss_onnx.serving.constraints.wanted import TOOLS_LIMIT, read_wanted

EMPTY: dict[str, Any] = {"type": "object", "properties": {}}


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def test_nothing_is_wanted() -> None:
    for request in (
        {},
        {"response_format": {"type": "text"}},
        {"tools": []},
        {"tool_choice": "none"},
    ):
        assert read_wanted(**request).is_nothing
    assert read_wanted(tools=[{"type": "web_search"}]).is_nothing  # it has no schema


def test_formats_of_chat_and_of_responses() -> None:
    assert json.loads(read_wanted({"type": "json_object"}).answer.text) == {"type": "object"}
    inner = {"name": "x", "schema": EMPTY}
    for given in ({"json_schema": inner}, inner):
        wanted = read_wanted({"type": "json_schema", **given})
        assert json.loads(wanted.answer.text) == EMPTY
        assert not wanted.answer.is_lenient


def test_tools_of_chat_and_of_responses() -> None:
    flat = {"type": "function", "name": "b", "parameters": EMPTY, "strict": False}
    wanted = read_wanted(tools=[tool("a"), flat, {"type": "custom"}])
    assert list(wanted.calls) == ["a", "b"]
    assert wanted.calls["b"].is_lenient
    assert json.loads(wanted.calls["a"].text)["additionalProperties"] is False
    assert (wanted.must_call, wanted.several_calls, wanted.has_tools) == (False, True, True)


@pytest.mark.parametrize(
    ("choice", "names", "must_call"),
    [
        (None, ["a", "b"], False),
        ("auto", ["a", "b"], False),
        ("none", [], False),
        ("required", ["a", "b"], True),
        ({"type": "function", "function": {"name": "b"}}, ["b"], True),
        ({"type": "function", "name": "b"}, ["b"], True),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("a")]}},
            ["a"],
            True,
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "b"}]},
            ["b"],
            False,
        ),
    ],
)
def test_choices(choice: Any, names: list[str], must_call: bool) -> None:
    wanted = read_wanted(tools=[tool("a"), tool("b")], tool_choice=choice)
    assert (list(wanted.calls), wanted.must_call) == (names, must_call)
    assert wanted.has_tools
    assert not wanted.is_nothing


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"not": value}
    return value


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"response_format": "json"}, 'response_format: found "json", expected an object'),
    ({"response_format": {"type": "xml"}}, 'response_format.type: found "xml", expected "text",'),
    ({"response_format": {}}, "response_format.type: found nothing, expected"),
    ({"response_format": {"type": "json_schema"}}, "response_format.schema: found nothing"),
    (schema(None), "response_format.json_schema.schema: found nothing, expected an object"),
    (schema([]), "response_format.json_schema.schema: found list, expected an object"),
    (
        {"response_format": {"type": "json_schema", "schema": {}, "strict": 1}},
        "response_format.strict: found int, expected true or false",
    ),
    (schema({"description": "a" * BYTES_LIMIT}), f"bytes, expected at most {BYTES_LIMIT}"),
    (schema(deep(DEPTH_LIMIT + 1)), f"found a schema nested deeper than {DEPTH_LIMIT}"),
    (
        schema({"enum": ["a" * (TEXT_LIMIT + 1)]}),
        "found a name, value or pattern of 2001 characters",
    ),
    (schema({"properties": {"a" * (TEXT_LIMIT + 1): {}}}), "of 2001 characters, expected at most"),
    (schema({"properties": {"title": {"const": "a" * 5000}}}), "of 5000 characters, expected at"),
    (schema({"x": "\ud800"}), "found half a surrogate pair, expected Unicode"),
    ({"tools": "x"}, "tools: found str, expected a list of at most 128"),
    ({"tools": [tool(f"f{i}") for i in range(TOOLS_LIMIT + 1)]}, "tools: found 129, expected"),
    ({"tools": [1]}, "tools[0]: found int, expected an object"),
    ({"tools": [tool("a"), tool("a b")]}, 'tools[1].function.name: found "a b", expected 1 to 64'),
    ({"tools": [tool("a" * 65)]}, "tools[0].function.name: found"),
    ({"tools": [tool("<|end|>")]}, 'tools[0].function.name: found "<|end|>", expected'),
    ({"tools": [tool("a"), tool("a")]}, "found a a second time, expected another name"),
    ({"tools": [tool("a", parameters=[])]}, "tools[0].function.parameters: found list"),
    ({"tools": [tool("a", parameters={"type": "array"})]}, 'found "array", expected "object"'),
    ({"tools": [tool("a", strict="x")]}, 'strict: found "x", expected true or false'),
    ({"tool_choice": "required"}, 'tool_choice: found "required" and no function'),
    ({"tools": [tool("a")], "tool_choice": "any"}, 'tool_choice: found "any", expected "none"'),
    ({"tools": [tool("a")], "tool_choice": 1}, "tool_choice: found int, expected an object"),
    ({"tools": [tool("a")], "tool_choice": {"type": "x"}}, 'tool_choice.type: found "x"'),
    (
        {"tools": [tool("a")], "tool_choice": {"type": "function", "name": "b"}},
        'tool_choice: found "b", expected a function of tools',
    ),
    (
        {"tools": [tool("a")], "tool_choice": {"type": "function", "function": {}}},
        "tool_choice: found nothing, expected a function of tools",
    ),
    (
        {"tools": [tool("a")], "tool_choice": {"type": "allowed_tools", "tools": [{"type": 1}, 2]}},
        "tool_choice.tools: found int, expected an object",
    ),
    (
        {
            "tools": [tool("a")],
            "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []},
        },
        'tool_choice: found "required" and no function',
    ),
    (
        {"tools": [tool("a")], "tool_choice": {"type": "allowed_tools"}},
        "found NoneType, expected a",
    ),
]


@pytest.mark.parametrize(("request_", "message"), WRONG)
def test_what_is_wrong_is_said_in_one_line(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_wanted(**request_)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_schemas_together_are_bounded() -> None:
    large = {"type": "object", "description": "x" * (BYTES_LIMIT - 100)}
    count = BYTES_TOGETHER // BYTES_LIMIT + 1
    tools = [tool(f"f{place}", parameters=large) for place in range(count)]
    with pytest.raises(InputError, match=f"together, expected at most {BYTES_TOGETHER}"):
        read_wanted(tools=tools)
    assert read_wanted(tools=tools[:-1]).calls


def test_a_schema_cannot_change_how_it_is_read() -> None:
    own = {"type": "object", "x-guidance": {"whitespace_flexible": True, "lenient": True}}
    assert "x-guidance" not in JsonSchema.of(own, "here").text


def test_a_depth_at_the_limit_is_allowed() -> None:
    assert read_wanted(**schema(deep(DEPTH_LIMIT))).answer is not None
