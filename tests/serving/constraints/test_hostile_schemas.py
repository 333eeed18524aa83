"""Schemas by somebody who means harm: refused in one line, or compiled within their limits."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.constraints.grammar_process import GrammarProcess
from gptoss_onnx.serving.constraints.schemas import TEXT_LIMIT
from support.constrained_server import ConstrainedServer
from support.harmony_tokenizer import write_harmony_tokenizer

MEMORY = 300 * 2**20  # bytes that this process may grow by, whatever is compiled


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ConstrainedServer:
    return ConstrainedServer(write_harmony_tokenizer(tmp_path_factory.mktemp("harmony")))


def chain(length: int, link: Any, last: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of definitions that each refer to the next one, twice."""
    refs = [{"$ref": f"#/$defs/d{place + 1}"} for place in range(length)]
    definitions = {f"d{place}": link(ref) for place, ref in enumerate(refs)}
    return {"$defs": {**definitions, f"d{length}": last}, "$ref": "#/$defs/d0"}


def product(factors: int, options: int) -> dict[str, Any]:
    """Return a schema whose parts, multiplied out, are `options ** factors`."""
    return {
        "allOf": [
            {
                "anyOf": [
                    {"type": "object", "properties": {f"p{i}_{j}": {"type": "integer"}}}
                    for j in range(options)
                ]
            }
            for i in range(factors)
        ]
    }


def text(pattern: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "product": (product(20, 2), "too large"),
    "wide product": (product(4, 20), "too large"),
    "itself": ({"$ref": "#"}, "no text satisfies it"),
    "each other": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        "no text satisfies it",
    ),
    "intersection": (
        {
            "allOf": [
                {"type": "string", "pattern": f".*{letter}.*"} for letter in "abcdefghijklmnopqrst"
            ]
        },
        "too much time or memory",
    ),
    "multiple": ({"type": "integer", "multipleOf": 9_999_991}, "too much time or memory"),
    "pattern of a million": (text("^(a{1000}){1000}$"), "cannot be enforced"),
    "look ahead": (text("^(?=x)"), "look-around"),
    "no pattern": (text("["), "unclosed character class"),
    "remote": ({"$ref": "http://127.0.0.1:9/x.json"}, "not present"),
    "file": ({"$ref": "file:///etc/passwd"}, "not present"),
    "missing": ({"$ref": "#/$defs/x"}, "cannot be enforced"),
    "many optional": (
        {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(2_000)}},
        "cannot be enforced",
    ),
    "nothing fits": ({"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
    "no type": ({"type": "objekt"}, "Invalid type: objekt"),
    "no properties": ({"type": "object", "properties": [1]}, "properties must be an object"),
    "not": ({"not": {"type": "string"}}, 'Unimplemented keys: ["not"]'),
    "unique": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "format": ({"type": "string", "format": "x\ny"}, "Unknown format: x y"),
    "length": ({"type": "string", "minLength": 10**20}, "minLength"),
    "bounds": ({"type": "integer", "minimum": 10**30}, "range"),
}
ALLOWED: dict[str, dict[str, Any]] = {
    "references": chain(60, lambda ref: {"type": "object", "properties": {"x": ref, "y": ref}}, {}),
    "unions": chain(60, lambda ref: {"anyOf": [ref, ref]}, {"type": "object"}),
    "intersections": chain(8, lambda ref: {"allOf": [ref, ref]}, {"type": "object"}),
    "recursion": {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}},
    "enumeration": {"enum": [f"value {place}" for place in range(4_000)]},
    "long value": {"enum": ["x" * TEXT_LIMIT]},
    "many items": {"type": "array", "minItems": 10**9},
    "long text": {"type": "string", "minLength": 10**9},
    "long pattern": text("^[a-z]{100000}$"),
    "blow up": text("(.*a){25}"),
    "window": text("^.*a.{20}$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(server: ConstrainedServer, name: str) -> None:
    schema, message = REFUSED[name]
    with pytest.raises(InputError) as caught:
        server.constraint(schema)
    said = str(caught.value)
    assert message in said
    assert said.startswith("response_format.json_schema.schema: cannot be enforced (")
    assert "\n" not in said
    assert len(said) < 400


@pytest.mark.parametrize("name", ALLOWED)
def test_compiled_within_limits(server: ConstrainedServer, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    constraint = server.constraint(ALLOWED[name])
    assert constraint is not None
    rng = np.random.default_rng(7)
    for _ in range(80):
        logits = rng.standard_normal(server.vocab, dtype=np.float32)
        constraint.mask(logits)
        token = int(logits.argmax())
        if token in server.stops:
            break
        constraint.accept(token)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MEMORY


def test_what_one_schema_broke_is_whole_for_the_next(server: ConstrainedServer) -> None:
    with pytest.raises(InputError, match="too much time or memory"):
        server.constraint({"type": "integer", "multipleOf": 9_999_973})
    assert server.constraint({"type": "integer", "multipleOf": 7}) is not None


def test_a_lenient_schema_is_enforced_as_far_as_can_be(server: ConstrainedServer) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    wanted = {"type": "json_schema", "json_schema": {"schema": schema, "strict": False}}
    constraint = server.maker.make(wanted, None, None, True, server.prompt)
    for found in server.texts(server.say(constraint, 3)):
        assert found.startswith("[")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True},
        {"type": "string", "format": "byte"},
        {"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]},
    ],
)
def test_what_a_lenient_schema_may_say_is_told(
    server: ConstrainedServer, schema: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r'\); "strict": false enforces the rest$') as caught:
        server.constraint(schema)
    assert "Enable" not in str(caught.value)
    wanted = {"type": "json_schema", "json_schema": {"schema": schema, "strict": False}}
    assert server.maker.make(wanted, None, None, True, server.prompt) is not None


@pytest.fixture
def process() -> Iterator[GrammarProcess]:
    process = GrammarProcess()
    yield process
    process.close()


def test_a_process_that_is_gone_is_started_again(process: GrammarProcess) -> None:
    assert process.problem(["start: /a/"], {}, "x") == ""
    process.close()
    assert process.problem(["start: /a/"], {}, "x") == ""
    assert "unclosed" in process.problem(["start: /a/", "start: /[/"], {}, "x")


def test_the_worker_is_a_script_of_its_own() -> None:
    """It starts in a tenth of a second because it imports nothing of ours."""
    from gptoss_onnx.serving.constraints import grammar_process

    assert "gptoss_onnx" not in Path(grammar_process.WORKER).read_text(encoding="utf-8")
