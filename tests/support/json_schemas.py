"""Schemas of all kinds that answers are held to."""

from typing import Any


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    closed = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": properties, **closed, **more}


_STRING, _INTEGER = {"type": "string", "maxLength": 12}, {"type": "integer"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": _object({"city": _STRING, "days": _INTEGER}),
    "nested": _object({"a": _object({"b": _object({"c": {"type": "boolean"}})})}),
    "optional": {
        "type": "object",
        "properties": {"a": _INTEGER, "b": _STRING, "c": {"type": "null"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "open": {"type": "object", "properties": {"a": _INTEGER}, "required": ["a"]},
    "empty": _object({}),
    "map": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 3}},
    "enum": _object({"unit": {"enum": ["celsius", "fahrenheit", 7, None, True]}}),
    "const": _object({"kind": {"const": "x"}, "all": {"const": {"a": [1, "b", None]}}}),
    "array": _object({"list": {"type": "array", "items": _INTEGER, "maxItems": 5}}),
    "array bounds": {"type": "array", "items": _STRING, "minItems": 2, "maxItems": 4},
    "tuple": {
        "type": "array",
        "prefixItems": [_INTEGER, _STRING, {"type": "boolean"}],
        "items": False,
        "minItems": 3,
    },
    "unicode": _object({"straße": {"enum": ["Köln 🌧", "東京", 'a"b\\c\n\t']}, "名": _STRING}),
    "any of": _object({"x": {"anyOf": [_INTEGER, _STRING, _object({"y": {"type": "null"}})]}}),
    "one of": {
        "oneOf": [
            _object({"kind": {"const": "cat"}, "lives": _INTEGER}),
            _object({"kind": {"const": "dog"}, "name": _STRING}),
        ]
    },
    "types": _object({"x": {"type": ["integer", "null", "boolean"]}}),
    "ref": {
        "$defs": {"point": _object({"x": {"type": "number"}, "y": {"type": "number"}})},
        **_object({"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}}),
    },
    "recursive": {
        "$defs": {
            "node": _object(
                {
                    "value": _INTEGER,
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                }
            )
        },
        "$ref": "#/$defs/node",
    },
    "bounds": _object(
        {
            "percent": {"type": "integer", "minimum": 0, "maximum": 100},
            "below": {"type": "integer", "exclusiveMaximum": -7},
            "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "even": {"type": "integer", "multipleOf": 2},
        }
    ),
    "strings": _object(
        {
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"},
            "short": {"type": "string", "minLength": 2, "maxLength": 4},
            "day": {"type": "string", "format": "date"},
            "id": {"type": "string", "format": "uuid"},
        }
    ),
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": _INTEGER}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "integer", "maximum": 9}}},
        ],
        "required": ["b"],
    },
    "patterns": {
        "type": "object",
        "patternProperties": {"^n_[a-z]{1,5}$": _INTEGER, "^s_[a-z]{1,5}$": _STRING},
        "additionalProperties": False,
    },
}
