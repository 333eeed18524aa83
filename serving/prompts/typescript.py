"""JSON schemas as gpt-oss was trained to read them: the types of TypeScript, more or less.

The rules are those of OpenAI's renderer (package openai-harmony), which the tests hold this to,
letter by letter. It knows `oneOf`, `type`, `enum` of strings, `properties`, `items`, `nullable`
and what explains a field; all else is `any`.
"""

from collections.abc import Iterator
from typing import Any

from gptoss_onnx.serving.prompts.json_letters import json_letters

_NAMES = {"integer": "number", "number": "number", "boolean": "boolean"}


def typescript(schema: Any, indent: str = "") -> str:
    """Return the type that a schema describes; its further lines begin with `indent`."""
    variants, kind = _get(schema, "oneOf"), _get(schema, "type")
    if isinstance(variants, list):
        return "".join(
            f"\n{indent} | {_type(variant, indent + '   ')}{_remarks(_explained(variant))}"
            for variant in variants
        )
    if isinstance(kind, list):
        names = [_NAMES.get(name, name) for name in kind if isinstance(name, str)]
        if names:
            return " | ".join(names)
    if kind == "object":
        return _object(schema, indent)
    if kind == "string":
        words = [f'"{word}"' for word in _list(schema, "enum") if isinstance(word, str)]
        return " | ".join(words) or "string"
    if kind == "array":
        return f"{typescript(schema['items'], indent)}[]" if "items" in schema else "Array<any>"
    return _NAMES.get(kind, "any") if isinstance(kind, str) else "any"


def _type(schema: Any, indent: str) -> str:
    """Return the type of a field or a variant, which may be null as well."""
    text = typescript(schema, indent)
    return f"{text} | null" if _get(schema, "nullable") is True and "null" not in text else text


def _object(schema: dict[str, Any], indent: str) -> str:
    described = _get(schema, "description")
    lines = [f"{indent}// {described}\n"] if isinstance(described, str) else []
    lines.append("{\n")
    required = {name for name in _list(schema, "required") if isinstance(name, str)}
    fields = _get(schema, "properties")
    for name, field in fields.items() if isinstance(fields, dict) else ():
        label = name if name in required else f"{name}?"
        lines += _comments(field, indent)
        if isinstance(_get(field, "oneOf"), list):
            lines += _choice(label, field, indent)
        else:
            default = "" if _has(field, "oneOf") else _remarks(_defaults(field))
            lines.append(f"{indent}{label}: {_type(field, indent + '    ')},{default}\n")
    lines.append(f"{indent}}}")
    return "".join(lines)


def _comments(field: Any, indent: str) -> Iterator[str]:
    """Give the lines above a field."""
    title, described = _get(field, "title"), _get(field, "description")
    if isinstance(title, str):
        yield f"{indent}// {title}\n{indent}//\n"
    if isinstance(described, str) and not _has(field, "oneOf"):
        yield f"{indent}// {described}\n"
    examples = _list(field, "examples")
    if examples:
        yield f"{indent}// Examples:\n"
    for example in examples:
        if isinstance(example, str):
            yield f'{indent}// - "{example}"\n'


def _choice(label: str, field: dict[str, Any], indent: str) -> Iterator[str]:
    """Give the lines of a field that is one of several types."""
    variants, described = field["oneOf"], _get(field, "description")
    first = _get(variants[0], "description") if variants else None
    # What is said of the field and of its first type is said once.
    is_above = isinstance(described, str) and described != first
    if is_above:
        yield f"{indent}// {described}\n"
    for default in _defaults(field):
        yield f"{indent}// {default}\n"
    yield f"{indent}{label}:\n"
    for place, variant in enumerate(variants):
        own = _get(variant, "description")
        is_said = isinstance(own, str) and own != described and not (place == 0 and is_above)
        remarks = [*([own] if is_said else []), *_defaults(variant)]
        yield f"{indent} | {_type(variant, indent + '   ')}{_remarks(remarks)}\n"
    yield f"{indent},\n"


def _defaults(field: Any) -> list[str]:
    """Return what is said of a field's default; a word of an enum stands without quotes."""
    if not _has(field, "default"):
        return []
    default = field["default"]
    if not isinstance(default, str):
        return [f"default: {json_letters(default)}"]
    return [f"default: {default}" if _list(field, "enum") else f'default: "{default}"']


def _explained(variant: Any) -> list[str]:
    """Return what is said behind a type that stands in no field."""
    described, remarks = _get(variant, "description"), _defaults(variant)
    if remarks and _list(variant, "enum"):
        remarks = [f"default: {json_letters(variant['default'])}"]
    return [described, *remarks] if isinstance(described, str) else remarks


def _remarks(remarks: list[str]) -> str:
    return f" // {' '.join(remarks)}" if remarks else ""


def _has(schema: Any, name: str) -> bool:
    return isinstance(schema, dict) and name in schema


def _get(schema: Any, name: str) -> Any:
    return schema.get(name) if isinstance(schema, dict) else None


def _list(schema: Any, name: str) -> list[Any]:
    value = _get(schema, name)
    return value if isinstance(value, list) else []
