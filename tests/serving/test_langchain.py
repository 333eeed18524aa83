"""LangChain's ChatOpenAI against the server, over chat completions and over responses."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from support.client_scripts import CALL, OBJECT, SAY, SCRIPTS, THINK
from support.scripted_package import write_scripted_package
from support.scripted_server import ScriptedServer, scripted_server


class Place(BaseModel):
    """A place."""

    city: str


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It is cold in {city}."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    package = tmp_path_factory.mktemp("langchain") / "package"
    with scripted_server(write_scripted_package(package, list(SCRIPTS.values()))) as running:
        yield running


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def model(server: ScriptedServer, request: pytest.FixtureRequest) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-oss",
        base_url=f"{server.url}/v1",
        api_key=SecretStr("none"),
        max_retries=0,
        use_responses_api=request.param,
    )


def test_chat(model: ChatOpenAI) -> None:
    answer = model.invoke(THINK)
    assert answer.text == "It is cold."
    usage = answer.usage_metadata
    assert usage is not None and usage["output_token_details"]["reasoning"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_streaming(model: ChatOpenAI) -> None:
    chunks = list(model.stream(THINK))  # pieces that wait for a slow reader come as one
    assert any(chunk.text for chunk in chunks)
    assert "".join(chunk.text for chunk in chunks) == "It is cold."


def test_tools_go_round(model: ChatOpenAI) -> None:
    bound = model.bind_tools([weather])
    asked: list[Any] = [HumanMessage(f"The weather? {CALL}")]
    answer = bound.invoke(asked)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})
    streamed: Any = sum_of(bound.stream(asked))
    assert [(c["name"], c["args"]) for c in streamed.tool_calls] == [(call["name"], call["args"])]
    result = ToolMessage(f"{weather(**call['args'])} {SAY}", tool_call_id=call["id"])
    assert bound.invoke([*asked, answer, result]).text == "Hello there."


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output(model: ChatOpenAI, method: Any) -> None:
    structured = model.with_structured_output(Place, method=method)
    assert structured.invoke(f"As JSON, please: {OBJECT}") == Place(city="Oslo")


def sum_of(chunks: Iterator[AIMessageChunk]) -> AIMessageChunk:
    """Return the message that chunks add up to."""
    whole = next(chunks)
    for chunk in chunks:
        whole += chunk
    return whole
