"""OpenAI's npm client against the server: chat, tools, structured output, Responses, errors, and
a stream that is given up.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.client_scripts import LETTERS, SCRIPTS
from support.scripted_package import write_scripted_package
from support.scripted_server import ScriptedServer, scripted_server
from support.served import wait_until

FOLDER = Path(__file__).parent / "openai_npm"

pytestmark = [pytest.mark.node, pytest.mark.clients]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    package = tmp_path_factory.mktemp("npm") / "package"
    with scripted_server(write_scripted_package(package, list(SCRIPTS.values()))) as running:
        yield running


@pytest.fixture(scope="module")
def found(server: ScriptedServer) -> dict[str, Any]:
    """What the client got in each scenario of `talk.mjs`."""
    if shutil.which("node") is None or not (FOLDER / "node_modules" / "openai").is_dir():
        pytest.skip("OpenAI's npm client is not installed (make client-tools)")
    done = subprocess.run(
        ["node", "talk.mjs", f"{server.url}/v1", json.dumps(LETTERS)],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


def test_the_packages_are_pinned_without_a_registry() -> None:
    assert '"resolved"' not in (FOLDER / "package-lock.json").read_text()


def test_chat_whole_and_streamed(found: dict[str, Any]) -> None:
    message = found["chat"]["message"]
    assert (message["content"], message["reasoning_content"]) == ("It is cold.", "Look it up.")
    assert found["chat"]["finish_reason"] == "stop"
    streamed = found["chatStream"]
    assert streamed["choice"]["message"]["content"] == "It is cold." and streamed["deltas"] > 1


def test_a_streamed_call_of_a_tool(found: dict[str, Any]) -> None:
    choice = found["chatTools"]
    assert choice["finish_reason"] == "tool_calls"
    function = choice["message"]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("weather", {"city": "Oslo"})


def test_structured_output_is_parsed(found: dict[str, Any]) -> None:
    assert found["chatObject"] == found["responsesObject"] == {"city": "Oslo"}


def test_a_response_is_made_read_listed_and_deleted(found: dict[str, Any]) -> None:
    made = found["responses"]
    assert made["text"] == made["again"] == "It is cold." and made["items"] == ["message"]
    assert (made["gone"]["class"], made["gone"]["status"]) == ("NotFoundError", 404)


def test_the_events_of_a_response(found: dict[str, Any]) -> None:
    streamed = found["responsesStream"]
    assert streamed["text"] == "It is cold."
    assert streamed["events"][:2] == ["response.created", "response.in_progress"]
    assert streamed["events"][-1] == "response.completed"
    assert "response.reasoning_text.delta" in streamed["events"]


def test_a_tool_s_output_continues_a_response(found: dict[str, Any]) -> None:
    expected = {"name": "weather", "arguments": {"city": "Oslo"}, "text": "Hello there."}
    assert found["responsesTools"] == expected


def test_errors_have_their_classes(found: dict[str, Any]) -> None:
    errors = found["errors"]
    assert errors["model"]["class"] == "NotFoundError"
    assert errors["model"]["code"] == "model_not_found"
    assert (errors["field"]["status"], errors["field"]["param"]) == (400, "temperature")
    assert errors["previous"]["code"] == "previous_response_not_found"


def test_a_stream_given_up_cancels_its_answer(
    server: ScriptedServer, found: dict[str, Any]
) -> None:
    assert found["abort"]["deltas"] == 3
    wait_until(lambda: server.cancelled() == 1)
