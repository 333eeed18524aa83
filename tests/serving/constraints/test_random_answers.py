"""Whatever a model says, what comes out is JSON of the schema that was asked for."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.constrained_server import ConstrainedServer
from support.harmony_tokenizer import write_harmony_tokenizer
from support.json_schemas import SCHEMAS
from support.plain_tokenizer import write_plain_tokenizer

DEMO = Path(__file__).parents[3] / "demo" / "checkpoint"


@pytest.fixture(scope="module", params=["demo", "harmony", "plain"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ConstrainedServer:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "harmony":
        write_harmony_tokenizer(folder)
    elif request.param == "plain":
        write_plain_tokenizer(folder, "added")
    return ConstrainedServer(DEMO if request.param == "demo" else folder)


def check(text: str, schema: dict[str, Any]) -> None:
    value = json.loads(text)
    text.encode()  # no half of a pair
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_answers_are_of_their_schema(server: ConstrainedServer, name: str) -> None:
    for seed in range(3):
        texts = server.texts(server.say(server.constraint(SCHEMAS[name]), seed))
        assert texts
        for text in texts:
            check(text, SCHEMAS[name])


def test_a_model_thinks_as_it_likes_and_once(server: ConstrainedServer) -> None:
    if server.tokenizer.harmony is None:
        pytest.skip("only harmony tells thoughts by their message")
    kinds = [
        [m.kind for m in server.messages(server.say(server.constraint(SCHEMAS["flat"]), seed))]
        for seed in range(12)
    ]
    assert {kind for answer in kinds for kind in answer} == {"reasoning", "content"}
    assert all(answer.count("reasoning") <= 1 for answer in kinds)


NAMES = st.text('abé"\\ _1', min_size=1, max_size=4)
LEAVES = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("integer", "number", "boolean", "null")]),
    st.integers(0, 6).map(lambda most: {"type": "string", "maxLength": most}),
    st.tuples(st.integers(-50, 50), st.integers(0, 70)).map(
        lambda at: {"type": "integer", "minimum": at[0], "maximum": at[0] + at[1]}
    ),
    st.lists(st.one_of(NAMES, st.integers(-9, 9), st.none()), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.tuples(NAMES, st.booleans()).map(lambda pair: {"const": list(pair)}),
)


def larger(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return schemas that hold others."""
    objects = st.dictionaries(NAMES, inner, max_size=3).flatmap(
        lambda properties: st.builds(
            lambda required, more: {
                "type": "object",
                "properties": properties,
                "required": sorted(required),
                "additionalProperties": more,
            },
            st.sets(st.sampled_from(sorted(properties)) if properties else st.nothing()),
            st.one_of(st.just(False), inner),
        )
    )
    arrays = st.builds(
        lambda items, least, more: {
            "type": "array",
            "items": items,
            "minItems": least,
            "maxItems": least + more,
        },
        inner,
        st.integers(0, 2),
        st.integers(0, 2),
    )
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    return st.one_of(objects, arrays, unions)


@settings(max_examples=60, deadline=None)
@given(schema=st.recursive(LEAVES, larger, max_leaves=5), seed=st.integers(0, 10**6))
def test_any_small_schema_is_kept_to(
    server: ConstrainedServer, schema: dict[str, Any], seed: int
) -> None:
    for text in server.texts(server.say(server.constraint(schema), seed)):
        check(text, schema)


def test_any_object_is_a_json_object(server: ConstrainedServer) -> None:
    for seed in range(3):
        constraint = server.maker.make({"type": "json_object"}, None, None, True, server.prompt)
        texts = server.texts(server.say(constraint, seed))
        assert texts
        assert all(isinstance(json.loads(text), dict) for text in texts)
