"""Schemas as the types that gpt-oss reads; the expected texts are openai-harmony 0.0.8's, and
test_harmony_oracle.py holds random schemas to it.
"""

import pytest

from gptoss_onnx.serving.prompts.json_letters import json_letters
from gptoss_onnx.serving.prompts.typescript import typescript


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({}, "any"),
        (True, "any"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "any"),
        ({"type": "null"}, "any"),
        ({"type": "integer"}, "number"),
        ({"type": ["integer", "null"]}, "number | null"),
        ({"type": []}, "any"),
        ({"type": "string", "enum": ["a", 'b"', 3]}, '"a" | "b""'),
        ({"type": "string", "enum": [3]}, "string"),
        ({"type": "array"}, "Array<any>"),
        ({"type": "array", "items": {"type": "array", "items": {}}}, "any[][]"),
        ({"type": "object"}, "{\n}"),
        ({"type": "object", "description": "d", "properties": 3}, "// d\n{\n}"),
        (
            {
                "oneOf": [
                    {"type": "string", "default": "x", "description": "d"},
                    {"type": "string", "enum": ["a"], "default": "a"},
                    {"type": "number", "nullable": True, "default": None},
                ]
            },
            '\n | string // d default: "x"\n | "a" // default: "a"\n | number | null '
            "// default: null",
        ),
    ],
)
def test_types(schema: object, text: str) -> None:
    assert typescript(schema) == text


def test_fields() -> None:
    schema = {
        "type": "object",
        "required": ["a", 3],
        "properties": {
            "a": {"type": "string", "title": "T", "description": "d\ne", "examples": ["x", 3]},
            "b": {"type": "string", "enum": ["x"], "default": "x", "nullable": True},
            "c": {"type": "number", "default": 1e22},
            "o": {
                "type": "object",
                "description": "inner",
                "properties": {"x": {"type": "integer", "default": [1, "é", {"k": None}]}},
            },
            "v": {
                "description": "both",
                "default": "s",
                "oneOf": [
                    {"type": "string", "description": "not said"},
                    {"type": "object", "description": "said", "properties": {"y": {}}},
                ],
            },
            "w": {"oneOf": [{"type": "string", "description": "same"}], "description": "same"},
        },
    }
    assert typescript(schema) == (
        "{\n"
        "// T\n//\n// d\ne\n// Examples:\n"
        '// - "x"\n'
        "a: string,\n"
        'b?: "x" | null, // default: x\n'
        "c?: number, // default: 1e22\n"
        "// inner\n"
        "o?:     // inner\n{\n"
        '    x?: number, // default: [1,"é",{"k":null}]\n'
        "    },\n"
        "// both\n"
        '// default: "s"\n'
        "v?:\n"
        " | string\n"
        " |    // said\n{\n   y?: any,\n   } // said\n"
        ",\n"
        "w?:\n"
        " | string\n"
        ",\n"
        "}"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e16"),
        (-1.5e22, "-1.5e22"),
        (0.0001, "0.0001"),
        (-2.5e-5, "-0.000025"),
        (1e-6, "1e-6"),
        (2**64 - 1, "18446744073709551615"),
        (2**64, "1.8446744073709552e19"),
        ('a"\n\u2028é', '"a\\"\\n\u2028é"'),
        ({"a": [1, {}], "é": []}, '{"a":[1,{}],"é":[]}'),
    ],
)
def test_json(value: object, text: str) -> None:
    assert json_letters(value) == text
