"""Wanted: what of an answer a request wants enforced, read from its fields."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.constraints.schemas import (
    ANY_OBJECT,
    NO_ARGUMENTS,
    JsonSchema,
    check_together,
)

TOOLS_LIMIT = 128  # functions of a request, as at OpenAI
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MODES = ("none", "auto", "required")
_SHOWN = 60  # characters of a value that a message repeats


@dataclass(frozen=True)
class Wanted:
    """What is enforced in one answer.

    Attributes:
        answer: what the answer's text must be, or None for any text.
        calls: the functions that may be called, and what their arguments must be.
        must_call: the answer must call one of them.
        several_calls: it may call more than one.
        has_tools: the prompt tells of tools, so calls must be forbidden where `calls` is empty.
    """

    answer: JsonSchema | None = None
    calls: Mapping[str, JsonSchema] = field(default_factory=dict)
    must_call: bool = False
    several_calls: bool = True
    has_tools: bool = False

    @property
    def schemas(self) -> list[JsonSchema]:
        """All schemas."""
        return [*self.calls.values(), *([] if self.answer is None else [self.answer])]

    @property
    def is_nothing(self) -> bool:
        """Whether any text will do."""
        return self.answer is None and not self.has_tools


def read_wanted(
    response_format: Any = None,
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    parallel_tool_calls: bool = True,
) -> Wanted:
    """Return what a request wants; its fields are as JSON readers give them.

    Both of OpenAI's forms are read: that of chat completions, where `json_schema` and `function`
    hold the details, and that of responses, where they stand beside `type`. Tools of other types
    than `function` have no schema, so they are left out. What is enforced is strict, unless the
    request says `"strict": false`: then what cannot be enforced in a schema counts for nothing.

    Raises InputError in one line for what is wrong or beyond a limit.
    """
    schemas = _read_tools(tools or ())
    mode, names = _read_choice(tool_choice, schemas)
    calls = {name: schemas[name] for name in names} if mode != "none" else {}
    answer = _read_format(response_format)
    wanted = Wanted(answer, calls, mode == "required", parallel_tool_calls, bool(schemas))
    check_together(wanted.schemas)
    return wanted


def _read_format(response_format: Any) -> JsonSchema | None:
    if response_format is None:
        return None
    fields = _object(response_format, "response_format")
    kind = fields.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return JsonSchema.of(ANY_OBJECT, "response_format")
    if kind != "json_schema":
        expected = '"text", "json_object" or "json_schema"'
        raise InputError(f"response_format.type: found {_shown(kind)}, expected {expected}")
    where = "response_format"
    if fields.get("json_schema") is not None:
        where += ".json_schema"
        fields = _object(fields["json_schema"], where)
    schema = _object(fields.get("schema"), f"{where}.schema")
    return JsonSchema.of(schema, f"{where}.schema", _is_lenient(fields, where))


def _read_tools(tools: Sequence[Any]) -> dict[str, JsonSchema]:
    """Return the functions among the tools."""
    if isinstance(tools, str) or not isinstance(tools, Sequence) or len(tools) > TOOLS_LIMIT:
        found = len(tools) if isinstance(tools, list) else type(tools).__name__
        raise InputError(f"tools: found {found}, expected a list of at most {TOOLS_LIMIT}")
    schemas: dict[str, JsonSchema] = {}
    for place, tool in enumerate(tools):
        where = f"tools[{place}]"
        fields = _object(tool, where)
        if fields.get("type") != "function":
            continue
        if fields.get("function") is not None:
            where += ".function"
            fields = _object(fields["function"], where)
        name = fields.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            expected = "1 to 64 letters, digits, _ and -"
            raise InputError(f"{where}.name: found {_shown(name)}, expected {expected}")
        if name in schemas:
            raise InputError(f"{where}.name: found {name} a second time, expected another name")
        schemas[name] = _parameters(fields, where)
    return schemas


def _parameters(fields: Mapping[str, Any], where: str) -> JsonSchema:
    """Return the schema of a function's arguments, which are always an object."""
    where_schema, is_lenient = f"{where}.parameters", _is_lenient(fields, where)
    if fields.get("parameters") is None:
        return JsonSchema.of(NO_ARGUMENTS, where_schema)
    schema = dict(_object(fields["parameters"], where_schema))
    if schema.setdefault("type", "object") != "object":
        found = _shown(schema["type"])
        raise InputError(f'{where_schema}.type: found {found}, expected "object"')
    return JsonSchema.of(schema, where_schema, is_lenient)


def _read_choice(choice: Any, schemas: Mapping[str, JsonSchema]) -> tuple[str, tuple[str, ...]]:
    """Return the mode, none, auto or required, and the functions that may be called."""
    everything = tuple(schemas)
    if choice is None:
        return "auto", everything
    mode: Any = choice
    names: tuple[Any, ...] = everything
    if isinstance(choice, str):
        pass
    else:
        fields = _object(choice, "tool_choice")
        if fields.get("type") == "function":
            named = _object(fields.get("function", fields), "tool_choice.function")
            mode, names = "required", (named.get("name"),)
        elif fields.get("type") == "allowed_tools":
            allowed = _object(fields.get("allowed_tools", fields), "tool_choice.allowed_tools")
            mode, names = allowed.get("mode", "auto"), _allowed(allowed.get("tools"))
        else:
            expected = '"function" or "allowed_tools"'
            found = _shown(fields.get("type"))
            raise InputError(f"tool_choice.type: found {found}, expected {expected}")
    if mode not in _MODES:
        expected = '"none", "auto", "required" or an object that names a function'
        raise InputError(f"tool_choice: found {_shown(mode)}, expected {expected}")
    for name in names:
        if not isinstance(name, str) or name not in schemas:
            raise InputError(f"tool_choice: found {_shown(name)}, expected a function of tools")
    if mode == "required" and not names:
        raise InputError('tool_choice: found "required" and no function, expected tools')
    return mode, names


def _allowed(tools: Any) -> tuple[Any, ...]:
    """Return the names of the functions in a list of allowed tools."""
    if not isinstance(tools, list) or len(tools) > TOOLS_LIMIT:
        raise InputError(
            f"tool_choice.tools: found {type(tools).__name__}, "
            f"expected a list of at most {TOOLS_LIMIT}"
        )
    fields = [_object(tool, "tool_choice.tools") for tool in tools]
    functions = [entry for entry in fields if entry.get("type") == "function"]
    inner = [_object(entry.get("function", entry), "tool_choice.tools") for entry in functions]
    return tuple(entry.get("name") for entry in inner)


def _is_lenient(fields: Mapping[str, Any], where: str) -> bool:
    strict = fields.get("strict")
    if strict is not None and type(strict) is not bool:
        raise InputError(f"{where}.strict: found {_shown(strict)}, expected true or false")
    return strict is False


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: found {_shown(value)}, expected an object")
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = f'"{value}"' if isinstance(value, str) else type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
