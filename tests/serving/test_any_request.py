"""Requests of every kind: the server follows its own description, and never fails."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.served import Served

DOCUMENT = json.loads(files("gptoss_onnx.serving").joinpath("openapi.json").read_bytes())
CHECKS = (
    "not_a_server_error",
    "content_type_conformance",
    "response_schema_conformance",
    "status_code_conformance",
)
SETTINGS = settings(
    deadline=None,  # another process of the run may have the cores
    derandomize=True,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def quick(document: dict[str, Any]) -> dict[str, Any]:
    """Return a description whose answers are short, so that many can be asked for."""
    document = json.loads(json.dumps(document))
    for name in ("ChatRequest", "TextRequest"):
        schema = document["components"]["schemas"][name]
        schema["required"].append("max_tokens")
        schema["properties"]["max_tokens"] |= {"maximum": 3}
        schema["properties"].pop("max_completion_tokens", None)
        schema["properties"]["n"] |= {"maximum": 2}
        schema["properties"].pop("model")  # any other than the server's is refused at once
    schema = document["components"]["schemas"]["ResponseRequest"]
    schema["required"].append("max_output_tokens")
    schema["properties"]["max_output_tokens"] |= {"maximum": 3}
    for name in ("model", "previous_response_id"):
        schema["properties"].pop(name)
    return document


def test_the_description_holds(server: Served, tmp_path: Path) -> None:
    """By the program and not by the plugin, which makes all its cases while tests are collected: a
    dozen seconds in each process of a parallel run.
    """
    (tmp_path / "openapi.json").write_text(json.dumps(quick(DOCUMENT)))
    words = [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", "openapi.json"]
    words += ["--url", server.url, "--checks", ",".join(CHECKS)]
    words += ["--phases", "examples,coverage,fuzzing"]
    words += ["--max-examples", "12", "--generation-deterministic", "--continue-on-failure"]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_description_is_served(server: Served) -> None:
    assert httpx.get(f"{server.url}/openapi.json").json() == DOCUMENT


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["auto", "required", "function", "json_schema", "user", "tool", "text"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "function", "name", "role", "content", "text", "id", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 2},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [1]},
}
LIMITS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}
SCHEMAS = {
    "/v1/chat/completions": "ChatRequest",
    "/v1/completions": "TextRequest",
    "/v1/responses": "ResponseRequest",
    "/detokenize": "DetokenizeRequest",
}


@pytest.mark.parametrize("path", GOOD)
@given(data=st.data())
@SETTINGS
def test_no_body_makes_the_server_fail(server: Served, path: str, data: st.DataObject) -> None:
    """Any JSON in any of the fields that are read: an answer, or one line about what is wrong."""
    properties = {"messages", "tools", "tool_choice", "prompt", "content", "add_special_tokens"}
    if path in SCHEMAS:
        properties = set(DOCUMENT["components"]["schemas"][SCHEMAS[path]]["properties"])
    names = st.sampled_from(sorted(properties - LIMITS - {"model"}))
    body = GOOD[path] | data.draw(st.dictionaries(names, JSON, max_size=3))
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=60)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        schema = {"$ref": "#/components/schemas/Error", "components": DOCUMENT["components"]}
        jsonschema.validate(answer.json(), schema)
        assert "\n" not in answer.json()["error"]["message"]


@given(content=st.binary(max_size=200))
@SETTINGS
def test_bytes_that_are_no_request(server: Served, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == 400
