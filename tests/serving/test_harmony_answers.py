"""The table of answers in harmony through the server: chat and responses, streamed and not.

The model is a graph that says the table's texts. The requests offer no tools, because answers to
those that do are held to the format, and then no malformed one could be said.
"""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from support.harmony_answers import PROMPT, harmony_cases
from support.scripted_package import letter, write_scripted_package
from support.scripted_server import scripted_server

CASES = [case for case in harmony_cases() if case.prompt == PROMPT and not case.needs_tools]
NUMBERS = pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
Calls = list[tuple[str, str]]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("scripted") / "package"
    package = write_scripted_package(folder, [case.said for case in CASES])
    with (
        scripted_server(package) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as opened,
    ):
        yield opened


def asked(number: int) -> dict[str, Any]:
    stop = list(CASES[number].stop) or None
    return {
        "model": "gpt-oss",
        "messages": [{"role": "user", "content": f"Say {letter(number)}"}],
        "temperature": 0,
        "stop": stop,
    }


def check(number: int, content: str, reasoning: str, calls: Calls) -> None:
    case = CASES[number]
    assert (content, reasoning, calls) == (case.content, case.reasoning, case.calls)


@NUMBERS
def test_chat(client: openai.OpenAI, number: int) -> None:
    choice = client.chat.completions.create(**asked(number)).choices[0]
    message: Any = choice.message
    made = message.tool_calls or []
    calls = [(call.function.name, call.function.arguments) for call in made]
    check(number, message.content or "", getattr(message, "reasoning_content", ""), calls)
    assert choice.finish_reason == ("tool_calls" if calls else "stop")


@NUMBERS
def test_chat_streamed(client: openai.OpenAI, number: int) -> None:
    content, reasoning = "", ""
    calls: list[list[str]] = []
    for chunk in client.chat.completions.create(**asked(number), stream=True):
        delta: Any = chunk.choices[0].delta
        content += delta.content or ""
        reasoning += getattr(delta, "reasoning_content", "")
        for call in delta.tool_calls or []:
            if call.id is not None:
                assert call.index == len(calls)
                calls.append([call.function.name, ""])
            calls[call.index][1] += call.function.arguments
    check(number, content, reasoning, [(name, arguments) for name, arguments in calls])


@NUMBERS
def test_responses(client: openai.OpenAI, number: int) -> None:
    if CASES[number].stop:
        pytest.skip("responses have no stop texts")
    question = f"Say {letter(number)}"
    whole = client.responses.create(model="gpt-oss", input=question, temperature=0)
    assert said_by(whole) == said_by_case(number)
    events: list[Any] = list(
        client.responses.create(model="gpt-oss", input=question, temperature=0, stream=True)
    )
    last = events[-1]
    assert last.type == "response.completed"
    assert said_by(last.response) == said_by_case(number)


def said_by_case(number: int) -> tuple[str, str, Calls]:
    # Each message is an item of its own there: no line ends between them.
    case = CASES[number]
    return case.content.replace("\n", ""), case.reasoning.replace("\n", ""), case.calls


def said_by(response: Any) -> tuple[str, str, Calls]:
    content, reasoning = "", ""
    calls: Calls = []
    for item in response.output:
        if item.type == "function_call":
            calls.append((item.name, item.arguments))
        elif item.type == "reasoning":
            reasoning += "".join(part.text for part in item.content)
        else:
            content += "".join(part.text for part in item.content)
    return content.replace("\n", ""), reasoning.replace("\n", ""), calls
