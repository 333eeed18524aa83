"""The Responses API as OpenAI's own client sees it, over a server whose model says given words."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from support.client_scripts import CALL, ENDLESS, OBJECT, SAY, SCHEMA, THINK
from support.openai_types import check_event, check_listed_item, check_response

TOOL: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}


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


def test_a_list_of_allowed_tools_leaves_the_others_out(client: OpenAI) -> None:
    other: Any = {"type": "function", "name": "other", "parameters": SCHEMA, "strict": True}
    named = {"type": "function", "name": "weather"}
    choice: Any = {"type": "allowed_tools", "mode": "required", "tools": [named]}
    # The most likely tokens: sampled ones, all as likely as each other here, may think to the end.
    fields: Any = {"model": "gpt-oss", "input": SAY, "max_output_tokens": 60, "temperature": 0}
    both = client.responses.create(**fields, tools=[other, TOOL], tool_choice=choice)
    one = client.responses.create(**fields, tools=[TOOL], tool_choice="required")
    assert both.usage is not None and one.usage is not None
    assert both.usage.input_tokens == one.usage.input_tokens
    # the model would rather say something else
    calls = [item.name for item in both.output if item.type == "function_call"]
    assert calls == ["weather"] and len(both.tools) == 2


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
        model="gpt-oss", input=SAY, text={"format": form}, max_output_tokens=60, temperature=0
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


def test_truncation_drops_the_oldest_turns(client: OpenAI) -> None:
    turns: Any = [{"role": "user", "content": f"{'old news ' * 400}{SAY}"} for _ in range(8)]
    turns.append({"role": "user", "content": THINK})
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model="gpt-oss", input=turns)
    assert refusal.value.code == "context_length_exceeded"
    made = client.responses.create(model="gpt-oss", input=turns, truncation="auto")
    assert made.output_text == "It is cold." and made.truncation == "auto"


def without_names(value: Any) -> Any:
    """Return a response without what each has of its own: ids and times."""
    if isinstance(value, dict):
        own = ("id", "call_id", "created_at", "completed_at", "usage")
        return {key: without_names(entry) for key, entry in value.items() if key not in own}
    return [without_names(entry) for entry in value] if isinstance(value, list) else value
