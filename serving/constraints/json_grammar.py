"""The grammars of a JSON schema, as llguidance reads them."""

import json
from collections.abc import Iterator
from typing import Any

import llguidance

from gptoss_onnx.serving.constraints.schemas import JsonSchema

WHITESPACE_LIMIT = 40  # characters in one place: a line end and its indentation
_WHITESPACE = rf"[\x20\x0A\x0D\x09]{{1,{WHITESPACE_LIMIT}}}"


def json_grammar(schema: JsonSchema) -> str:
    """Return the grammar of the JSON texts that a schema allows.

    Whitespace is bounded, so that a model cannot go on with it for ever; there is none before and
    behind the text. Raises ValueError for what llguidance cannot read.
    """
    return llguidance.LLMatcher.grammar_from_json_schema(configured(schema))


def configured(schema: JsonSchema) -> str:
    """Return a schema, as JSON, with what llguidance shall make of it."""
    document = json.loads(schema.text)
    document["x-guidance"] = {
        "whitespace_flexible": True,
        "whitespace_pattern": _WHITESPACE,
        "lenient": schema.is_lenient,
    }
    return json.dumps(document, ensure_ascii=False)


def pattern_grammars(schema: JsonSchema) -> list[str]:
    """Return a grammar for each pattern in a schema, of a text that has nothing else to do: so it
    can be tried whatever comes before it in an answer.
    """
    patterns = dict.fromkeys(_patterns(json.loads(schema.text)))
    return [
        llguidance.LLMatcher.grammar_from_json_schema({"type": "string", "pattern": pattern})
        for pattern in patterns
    ]


def _patterns(value: Any) -> Iterator[str]:
    """Yield what `pattern` says at any place; a property of that name is no text."""
    if isinstance(value, dict):
        pattern = value.get("pattern")
        if isinstance(pattern, str):
            yield pattern
        yield from (found for inner in value.values() for found in _patterns(inner))
    elif isinstance(value, list):
        yield from (found for inner in value for found in _patterns(inner))
