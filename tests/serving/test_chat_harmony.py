"""Reasoning, calls and structured answers of a harmony model, through the openai client."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from support.scripted_package import letter, write_scripted_package
from support.scripted_server import ScriptedServer, scripted_server

THOUGHT = "<|channel|>analysis<|message|>They ask."
SCRIPTS = [
    f"{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>It is cold.<|return|>",
    f"{THOUGHT}<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
    '<|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
    '<|channel|>final<|message|>{"city": "Oslo", "sky": "grey"}<|return|>',
    f"{THOUGHT} More and more and more",
]
ANSWER, CALL, OBJECT, ENDLESS = (letter(place) for place in range(4))
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    folder = tmp_path_factory.mktemp("scripted") / "package"
    with scripted_server(write_scripted_package(folder, SCRIPTS)) as running:
        yield running


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def asked(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def streamed(client: openai.OpenAI, text: str, **fields: Any) -> list[ChatCompletionChunk]:
    stream = client.chat.completions.create(
        model="gpt-oss", messages=asked(text), stream=True, **fields
    )
    return list(stream)


def test_reasoning_stands_beside_the_content(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-oss", messages=asked(ANSWER))
    choice = answer.choices[0]
    assert choice.message.content == "It is cold."
    assert choice.message.model_extra is not None
    assert choice.message.model_extra["reasoning_content"] == "They ask."
    assert choice.message.model_extra["reasoning"] == "They ask."
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage is not None and usage.completion_tokens_details is not None
    reasoned = usage.completion_tokens_details.reasoning_tokens
    assert reasoned is not None and 2 <= reasoned < usage.completion_tokens - 4


def test_reasoning_in_a_stream_comes_first(client: openai.OpenAI) -> None:
    kinds = []
    texts = {"content": "", "reasoning_content": ""}
    for chunk in streamed(client, ANSWER)[1:]:
        for kind in texts:
            if piece := getattr(chunk.choices[0].delta, kind, None):
                texts[kind] += piece
                kinds.append(kind)
    assert texts == {"content": "It is cold.", "reasoning_content": "They ask."}
    assert kinds == sorted(kinds, reverse=True)


@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "weather"}}], ids=str
)
def test_a_call(client: openai.OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(
        model="gpt-oss", messages=asked(CALL), tools=TOOLS, tool_choice=choice
    )
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert message.content is None and message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}


def test_a_call_in_a_stream(client: openai.OpenAI) -> None:
    arguments, ids, names = "", [], []
    chunks = streamed(client, CALL, tools=TOOLS)
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or ():
            assert call.index == 0 and call.function is not None
            arguments += call.function.arguments or ""
            ids += [call.id] if call.id else []
            names += [call.function.name] if call.function.name else []
    assert json.loads(arguments) == {"city": "Oslo"}
    assert names == ["weather"] and len(ids) == 1
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_call_and_its_result_go_back(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="gpt-oss", messages=asked(CALL), tools=TOOLS)
    message = first.choices[0].message
    assert message.tool_calls is not None
    back: Any = [
        *asked(CALL),
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": f"-3 °C {ANSWER}"},
    ]
    answer = client.chat.completions.create(model="gpt-oss", messages=back, tools=TOOLS)
    assert answer.choices[0].message.content == "It is cold."
    usage = answer.usage
    assert usage is not None and usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) > 0


def test_an_object_of_a_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "sky": {"enum": ["grey", "blue"]}},
        "required": ["city", "sky"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema}}
    answer = client.chat.completions.create(
        model="gpt-oss", messages=asked(OBJECT), response_format=wanted
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Oslo", "sky": "grey"}


def test_what_breaks_a_schema_cannot_be_said(client: openai.OpenAI) -> None:
    """The script says `"grey"`, and the schema another word."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "sky": {"const": "blue"}},
        "required": ["city", "sky"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema}}
    answer = client.chat.completions.create(
        model="gpt-oss",
        messages=asked(OBJECT),
        response_format=wanted,
        temperature=0,
        max_completion_tokens=60,
    )
    assert "grey" not in (answer.choices[0].message.content or "")


def test_an_answer_cut_in_its_thoughts(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-oss", messages=asked(ENDLESS), max_completion_tokens=6
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == ""
    usage = answer.usage
    assert usage is not None and usage.completion_tokens_details is not None
    assert usage.completion_tokens == 6


def test_stop_texts_are_not_looked_for_in_thoughts(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-oss", messages=asked(ANSWER), stop=["ask", "cold"]
    )
    assert answer.choices[0].message.content == "It is "
    assert answer.choices[0].message.model_extra is not None
    assert answer.choices[0].message.model_extra["reasoning_content"] == "They ask."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "wand", "wand": {}}]}, "tools[0].type"),
        ({"tools": [*TOOLS, *TOOLS]}, "tools[1].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
        ),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"reasoning_effort": "xhigh"}, "reasoning_effort"),
    ],
    ids=str,
)
def test_fields_that_are_wrong(client: openai.OpenAI, fields: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-oss", messages=asked(ANSWER), **fields)
    assert caught.value.param == param, caught.value.message
    assert "expected" in caught.value.message
