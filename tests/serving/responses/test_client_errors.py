"""What OpenAI's client is told where something is wrong, unknown or gone."""

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from support.client_scripts import ENDLESS, SAY, SCRIPTS
from support.openai_types import check_event
from support.scripted_package import write_scripted_package
from support.scripted_server import ScriptedServer, scripted_server
from support.served import wait_until


def test_what_is_deleted_or_not_stored_is_unknown(client: OpenAI) -> None:
    kept = client.responses.create(model="gpt-oss", input=SAY)
    client.responses.delete(kept.id)
    unstored = client.responses.create(model="gpt-oss", input=SAY, store=False)
    for name in (kept.id, unstored.id, "resp_unknown"):
        for ask in (
            client.responses.retrieve,
            client.responses.delete,
            client.responses.cancel,
            client.responses.input_items.list,
        ):
            with pytest.raises(openai.NotFoundError, match="not found"):
                ask(name)
        with pytest.raises(openai.NotFoundError) as refusal:
            client.responses.create(model="gpt-oss", input=SAY, previous_response_id=name)
        assert refusal.value.code == "previous_response_not_found"
        assert refusal.value.param == "previous_response_id"


def test_a_response_that_has_ended_cannot_be_cancelled(client: OpenAI) -> None:
    made = client.responses.create(model="gpt-oss", input=SAY)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(made.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"input": "x" * 40_000}, "input"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "x"}}}},
            None,
        ),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    client: OpenAI, fields: Any, param: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refusal:
            client.responses.create(**{"model": "gpt-oss", "input": SAY, **fields}, stream=stream)
        assert refusal.value.type == "invalid_request_error"
        assert param is None or refusal.value.param == param
        assert "\n" not in refusal.value.message
        assert "response_format" not in refusal.value.message


def test_a_client_that_leaves_cancels_its_answer(server: ScriptedServer, client: OpenAI) -> None:
    before = server.cancelled()
    stream = client.responses.create(model="gpt-oss", input=ENDLESS, stream=True)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    wait_until(lambda: server.cancelled() == before + 1)
    with server.metrics.held(), pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/responses", json={"input": ENDLESS}, timeout=0.3)
    wait_until(lambda: server.cancelled() == before + 2)
    assert client.responses.create(model="gpt-oss", input=SAY).output_text == "Hello there."


def test_an_answer_that_fails_says_so_in_its_last_event(tmp_path: Path) -> None:
    package = write_scripted_package(tmp_path / "package", list(SCRIPTS.values()))
    with (
        scripted_server(package, request_seconds=0.3) as running,
        OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
        running.metrics.held(),
    ):
        last = list(client.responses.create(model="gpt-oss", input=ENDLESS, stream=True))[-1]
        check_event(last.model_dump(exclude_unset=True, by_alias=True))
        assert last.type == "response.failed" and last.response.error is not None
        assert "longer than 0.3 s" in last.response.error.message
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(last.response.id)
        with pytest.raises(openai.InternalServerError, match="longer than"):
            client.responses.create(model="gpt-oss", input=ENDLESS)


def test_a_chain_outlives_its_first_responses(tmp_path: Path) -> None:
    package = write_scripted_package(tmp_path / "package", list(SCRIPTS.values()))
    with (
        scripted_server(package, kept_responses=2) as running,
        OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
    ):
        names: list[str] = []
        for turn in range(4):
            previous = names[-1] if names else None
            made = client.responses.create(
                model="gpt-oss", input=f"{turn} {SAY}", previous_response_id=previous
            )
            names.append(made.id)
        for name in names[:2]:
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(name)
        listed = list(client.responses.input_items.list(names[-1], order="asc"))
        assert [item.type for item in listed] == ["message"] * 7


def test_nobody_sees_the_responses_of_another_key(tmp_path: Path) -> None:
    package = write_scripted_package(tmp_path / "package", list(SCRIPTS.values()))
    with scripted_server(package, api_keys=("one", "two")) as running:
        one, two = (
            OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)
            for key in ("one", "two")
        )
        made = one.responses.create(model="gpt-oss", input=SAY)
        assert one.responses.retrieve(made.id).id == made.id
        with pytest.raises(openai.NotFoundError):
            two.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            two.responses.create(model="gpt-oss", input=SAY, previous_response_id=made.id)
