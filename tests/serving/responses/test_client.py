"""The Responses API as OpenAI's own client sees it, over a server whose model says given words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from support.client_scripts import CALL, ENDLESS, OBJECT, SAY, SCHEMA, SCRIPTS, THINK
from support.openai_types import check_event, check_listed_item, check_response
from support.scripted_package import write_scripted_package
from support.scripted_server import ScriptedServer, scripted_server
from support.served import wait_until

TOOL: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    package = tmp_path_factory.mktemp("responses") / "package"
    with scripted_server(write_scripted_package(package, list(SCRIPTS.values()))) as running:
        yield running


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def test_a_text_is_answered_and_the_response_can_be_read_again(client: OpenAI) -> None:
    made = client.responses.create(model="gpt-oss", input=SAY, metadata={"k": "v"})
    check_response(made.model_dump(exclude_unset=True, by_alias=True))
    assert made.output_text == "Hello there." and made.status == "completed"
    assert made.metadata == {"k": "v"}
    assert client.responses.retrieve(made.id) == made
    listed = client.responses.input_items.list(made.id)
    assert [item.type for item in listed] == ["message"]


def test_thoughts_and_their_tokens_are_told(client: OpenAI) -> None:
    made = client.responses.create(model="gpt-oss", input=THINK)
    thoughts, message = made.output
    assert thoughts.type == "reasoning" and thoughts.content is not None
    assert thoughts.content[0].text == "Look it up." and message.type == "message"
    assert made.usage is not None
    assert 0 < made.usage.output_tokens_details.reasoning_tokens < made.usage.output_tokens


@pytest.mark.parametrize("asked", [SAY, THINK, CALL, OBJECT])
def test_a_stream_ends_in_what_is_answered_whole(client: OpenAI, asked: str) -> None:
    fields: Any = {"model": "gpt-oss", "input": asked, "tools": [TOOL], "store": False}
    whole = client.responses.create(**fields).model_dump()
    events = list(client.responses.create(**fields, stream=True))
    for event in events:
        check_event(event.model_dump(exclude_unset=True, by_alias=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert without_names(events[-1].response.model_dump()) == without_names(whole)


def test_the_client_s_own_reader_follows_the_events(client: OpenAI) -> None:
    with client.responses.stream(model="gpt-oss", input=CALL, tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.reasoning_text.delta" in kinds and "response.output_text.delta" in kinds
    assert "response.function_call_arguments.delta" in kinds
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]


def test_tools_go_round_with_the_response_s_id(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-oss", input=CALL, tools=[TOOL])
    call = first.output[-1]
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("weather", '{"city":"Oslo"}')
    second = client.responses.create(
        model="gpt-oss",
        tools=[TOOL],
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": f"2 °C {SAY}"}],
    )
    assert second.output_text == "Hello there."
    assert second.previous_response_id == first.id
    listed = list(client.responses.input_items.list(second.id, order="asc", limit=2))
    assert [item.type for item in listed] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call_output",
    ]
    for item in listed:
        check_listed_item(item.model_dump(exclude_unset=True, by_alias=True))


def test_tools_go_round_with_all_items_sent_back(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-oss", input=CALL, tools=[TOOL], store=False)
    call = first.output[-1]
    assert call.type == "function_call"
    items: Any = [{"role": "user", "content": CALL}, *first.output]
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": SAY}]
    second = client.responses.create(model="gpt-oss", input=items, tools=[TOOL], store=False)
    assert second.output_text == "Hello there."


def test_the_second_turn_finds_the_first_in_the_cache(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-oss", input=f"{'long ago ' * 20}{SAY}")
    second = client.responses.create(model="gpt-oss", input=THINK, previous_response_id=first.id)
    assert first.usage is not None and second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens > first.usage.input_tokens // 2
    assert second.output_text == "It is cold."


def test_an_answer_obeys_a_schema(client: OpenAI) -> None:
    form: Any = {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}
    made = client.responses.create(model="gpt-oss", input=OBJECT, text={"format": form})
    assert made.output_text == '{"city":"Oslo"}'
    # the model would rather say something else
    forced = client.responses.create(
        model="gpt-oss", input=SAY, text={"format": form}, max_output_tokens=60
    )
    assert forced.output_text.lstrip().startswith("{")


def test_the_limit_of_tokens_makes_it_incomplete(client: OpenAI) -> None:
    fields: Any = {"model": "gpt-oss", "input": ENDLESS, "max_output_tokens": 9}
    made = client.responses.create(**fields)
    assert made.status == "incomplete" and made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.usage is not None and made.usage.output_tokens == 9
    last = list(client.responses.create(**fields, stream=True))[-1]
    assert last.type == "response.incomplete"


def test_log_probabilities_name_the_tokens_of_the_text(client: OpenAI) -> None:
    fields: Any = {"model": "gpt-oss", "input": THINK, "top_logprobs": 2}
    made = client.responses.create(**fields, include=["message.output_text.logprobs"])
    message = made.output[-1]
    assert message.type == "message" and message.content[0].type == "output_text"
    logprobs = message.content[0].logprobs
    assert logprobs is not None and "".join(entry.token for entry in logprobs) == "It is cold."
    assert all(len(entry.top_logprobs) == 2 for entry in logprobs)
    deltas = [
        event
        for event in client.responses.create(**fields, stream=True)
        if event.type == "response.output_text.delta"
    ]
    assert "".join(entry.token for event in deltas for entry in event.logprobs) == "It is cold."


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


def test_truncation_drops_the_oldest_turns(client: OpenAI) -> None:
    turns: Any = [{"role": "user", "content": f"{'old news ' * 400}{SAY}"} for _ in range(8)]
    turns.append({"role": "user", "content": THINK})
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model="gpt-oss", input=turns)
    assert refusal.value.code == "context_length_exceeded"
    made = client.responses.create(model="gpt-oss", input=turns, truncation="auto")
    assert made.output_text == "It is cold." and made.truncation == "auto"


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


def without_names(value: Any) -> Any:
    """Return a response without what each has of its own: ids and times."""
    if isinstance(value, dict):
        own = ("id", "call_id", "created_at", "completed_at", "usage")
        return {key: without_names(entry) for key, entry in value.items() if key not in own}
    return [without_names(entry) for entry in value] if isinstance(value, list) else value
