"""Constraints on gpt-oss's published tokenizer, at the size of its model's vocabulary."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from support.constrained_server import ConstrainedServer
from support.json_schemas import SCHEMAS

PUBLISHED = Path(__file__).parents[2] / "build" / "published"
VOCAB = 201_088
LARGEST_ID = 200_018  # of the tokenizer
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": SCHEMAS[schema]}}
    for name, schema in (("get_weather", "flat"), ("get_weather_of", "ref"))
]

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def server() -> ConstrainedServer:
    if not (PUBLISHED / ".complete").is_file():
        pytest.skip("the published tokenizer is not there: tests/clients/published.sh fetches it")
    return ConstrainedServer(PUBLISHED / "tokenizer", VOCAB)


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_answers_are_of_their_schema(server: ConstrainedServer, name: str) -> None:
    texts = server.texts(server.say(server.constraint(SCHEMAS[name]), 3))
    assert texts
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMAS[name], jsonschema.Draft202012Validator)


def test_random_calls_are_of_their_schema(server: ConstrainedServer) -> None:
    for seed in range(3):
        said = server.say(server.constraint(tools=TOOLS, choice="required"), seed)
        calls = [message for message in server.messages(said) if message.kind == "tool_call"]
        assert calls
        for call in calls:
            place = ("functions.get_weather", "functions.get_weather_of").index(
                call.recipient or ""
            )
            jsonschema.validate(json.loads(call.text), TOOLS[place]["function"]["parameters"])


def test_a_header_as_models_write_it_is_allowed(server: ConstrainedServer) -> None:
    constraint = server.constraint(tools=TOOLS, choice="required")
    said = (
        "<|channel|>analysis<|message|>Weather 天气.<|end|><|start|>assistant<|channel|>commentary"
    )
    said += (
        ' to=functions.get_weather <|constrain|>json<|message|>{"city": "Köln", "days": 2}<|call|>'
    )
    assert constraint is not None
    for token in server.tokenizer.encode(said):
        logits = np.zeros(VOCAB, dtype=np.float32)
        constraint.mask(logits)
        assert np.isfinite(logits[token])
        assert np.flatnonzero(np.isfinite(logits)).max() <= LARGEST_ID
        constraint.accept(token)
