"""Events of a response: their order, their types, and the response that they add up to."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.serving.answers import AnswerDelta
from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.responses.events import ResponseEvents
from gptoss_onnx.serving.running import Usage
from support.openai_types import check_event, check_output_item, check_response

USAGE = Usage(prompt_tokens=7, cached_tokens=3, completion_tokens=9, reasoning_tokens=4)
START: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "m",
    "output": [],
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "usage": None,
}
ANSWER = [
    AnswerDelta("reasoning", "Look ", item=0),
    AnswerDelta("reasoning", "it up.", item=0),
    AnswerDelta("content", "I look", item=1),
    AnswerDelta("content", ".", item=1),
    AnswerDelta("tool_call", "", 0, "weather", "call_1", item=2),
    AnswerDelta("tool_call", '{"city":', 0, item=2),
    AnswerDelta("tool_call", '"A"}', 0, item=2),
    AnswerDelta("tool_call", "{}", 1, "time", "call_2", item=3),
]


def run(deltas: list[AnswerDelta], reason: Any = "stop") -> tuple[list[dict[str, Any]], Any]:
    """Return all events of an answer, and the response."""
    building = ResponseEvents(START)
    events = building.start()
    for delta in deltas:
        events += building.push(delta)
    events += building.finish(reason, USAGE, 2)
    return events, building.response


def test_the_events_of_an_answer_come_in_the_order_of_the_api() -> None:
    events, _ = run(ANSWER)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        check_event(event)


def test_the_response_holds_what_the_events_told() -> None:
    events, document = run(ANSWER)
    assert events[-1]["response"] == document
    response = check_response(document)
    assert response.status == "completed" and response.output_text == "I look."
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == document["output"] and len(done) == 4
    for item in done:
        check_output_item(item)
    thoughts, _, first, second = document["output"]
    assert thoughts["content"][0]["text"] == "Look it up." and thoughts["summary"] == []
    assert (first["name"], first["call_id"], first["arguments"]) == (
        "weather",
        "call_1",
        '{"city":"A"}',
    )
    assert (second["name"], second["arguments"]) == ("time", "{}")
    assert response.usage is not None and response.usage.total_tokens == 16
    assert response.usage.input_tokens_details.cached_tokens == 3
    assert response.usage.output_tokens_details.reasoning_tokens == 4


def test_the_limit_of_tokens_leaves_response_and_last_item_incomplete() -> None:
    events, document = run(ANSWER[:6], "length")
    assert events[-1]["type"] == "response.incomplete"
    response = check_response(document)
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    statuses = [item["status"] for item in document["output"]]
    assert statuses == ["completed", "completed", "incomplete"]
    assert document["output"][-1]["arguments"] == '{"city":'


def test_a_failure_says_what_went_wrong_and_keeps_what_was_said() -> None:
    building = ResponseEvents(START)
    building.push(ANSWER[2])
    last = building.fail(ApiError(500, "the engine failed"), USAGE)[-1]
    check_event(last)
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "the engine failed"}
    assert last["response"]["output"][0]["content"][0]["text"] == "I look"


def test_an_answer_of_nothing_has_no_items() -> None:
    events, document = run([AnswerDelta("content", "\n")])
    assert [event["type"] for event in events[2:]] == ["response.completed"]
    assert check_response(document).output == []


@pytest.mark.parametrize("asked", [True, False])
def test_log_probabilities_stand_in_deltas_and_in_the_text(asked: bool) -> None:
    top = {"token": "b", "logprob": -2.0, "bytes": [98]}
    logprob = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [top]}
    building = ResponseEvents(START, with_logprobs=asked)
    events = building.push(AnswerDelta("content", "a", item=0), [logprob])
    events += building.push(AnswerDelta("content", "a", item=0), [logprob])
    events += building.finish("stop", USAGE, 2)
    for event in events:
        check_event(event)
    part = building.response["output"][0]["content"][0]
    assert part.get("logprobs") == ([logprob, logprob] if asked else None)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [len(event["logprobs"]) for event in deltas] == [int(asked)] * 2


def test_messages_of_one_kind_are_items_of_their_own() -> None:
    deltas = [
        AnswerDelta("content", "One.", item=0),
        AnswerDelta("content", "\n"),  # as a chat shows them
        AnswerDelta("content", "Two.", item=1),
    ]
    _, document = run(deltas)
    assert [item["content"][0]["text"] for item in document["output"]] == ["One.", "Two."]


@st.composite
def answers(draw: st.DrawFn) -> list[AnswerDelta]:
    """Pieces as a reader gives them: items and calls are counted, and a call begins with its
    name.
    """
    deltas, calls = [], 0
    kinds = draw(st.lists(st.sampled_from(["content", "reasoning", "tool_call"])))
    for item, kind in enumerate(kinds):
        texts = draw(st.lists(st.text("a \n😀", min_size=1, max_size=3), min_size=1, max_size=3))
        if kind == "tool_call":
            deltas.append(AnswerDelta(kind, "", calls, f"f{calls}", f"call_{calls}", item))
            deltas += [AnswerDelta(kind, text, calls, item=item) for text in texts]
            calls += 1
        else:
            deltas += [AnswerDelta(kind, text, item=item) for text in texts]
    return deltas


@given(answers(), st.sampled_from(["stop", "length"]))
def test_deltas_add_up_to_items_whatever_the_model_says(
    deltas: list[AnswerDelta], reason: str
) -> None:
    events, document = run(deltas, reason)
    for event in events:
        check_event(event)
    told: dict[int, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            place = event["output_index"]
            told[place] = told.get(place, "") + event["delta"]
    items = document["output"]
    texts = [
        item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        for item in items
    ]
    assert texts == [told.get(place, "") for place in range(len(items))]
    assert "".join(texts) == "".join(delta.text for delta in deltas)
    calls = [item for item in items if item["type"] == "function_call"]
    assert [call["call_id"] for call in calls] == [delta.id for delta in deltas if delta.id]
