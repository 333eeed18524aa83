"""The tools of a request: functions of the caller's, checked and read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import printable
from gptoss_onnx.runtime.messages import plain_data
from gptoss_onnx.serving.prompts.messages import unicode_text

TOOLS_LIMIT = 128
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES = ("none", "auto", "required")


@dataclass(frozen=True)
class ToolSpec:
    """A function: `parameters` is the JSON schema of its arguments, None where it takes none."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


def read_tools(tools: Sequence[Mapping[str, Any]] | None) -> tuple[ToolSpec, ...]:
    """Return the functions of a request's `tools`.

    Raises InputError, which names the field, such as `tools[0].function.name`: for a tool that is
    no function, a name that is none or comes twice, a schema that is no object or nested more than
    64 deep, and more than 128 tools.
    """
    if tools is None:
        return ()
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InputError(f"tools: found {type(tools).__name__}, expected a list")
    if len(tools) > TOOLS_LIMIT:
        raise InputError(f"tools: found {len(tools)}, expected at most {TOOLS_LIMIT}")
    plain = plain_data(list(tools), "tools")
    assert isinstance(plain, list)
    read: dict[str, ToolSpec] = {}
    for place, tool in enumerate(plain):
        spec = _tool(tool, f"tools[{place}]")
        if spec.name in read:
            raise InputError(
                f"tools[{place}].function.name: found {spec.name!r} twice, expected it once"
            )
        read[spec.name] = spec
    return tuple(read.values())


def offered(tools: tuple[ToolSpec, ...], tool_choice: Any) -> tuple[ToolSpec, ...]:
    """Return the tools that the model is told of: none where the choice is `none`.

    Where a choice names some of them it is told of all, so that the prompt does not change with the
    choice; constraints keep it from calling the others. Raises InputError where `tool_choice` is
    none of OpenAI's, or names a tool that is not there.
    """
    if tool_choice is None or tool_choice in _CHOICES:
        if tool_choice == "required" and not tools:
            raise InputError("tool_choice: found 'required', expected tools beside it")
        return () if tool_choice == "none" else tools
    known = {tool.name for tool in tools}
    for name in _chosen(tool_choice):
        if not isinstance(name, str):
            raise InputError(
                f"tool_choice: found {printable(repr(tool_choice))[:80]}, expected none, auto, "
                "required, or functions by their names"
            )
        if name not in known:
            raise InputError(
                f"tool_choice.function.name: found {printable(name)[:80]!r}, expected the name of "
                "one of tools"
            )
    return tools


def _chosen(choice: Any) -> list[Any]:
    """Return the names that a choice gives; None for what is no name."""
    if not isinstance(choice, Mapping):
        return [None]
    if choice.get("type") != "allowed_tools":
        function = choice.get("function")
        return [function.get("name") if isinstance(function, Mapping) else None]
    allowed = choice.get("allowed_tools")
    entries = allowed.get("tools") if isinstance(allowed, Mapping) else None
    if not isinstance(entries, list) or not 0 < len(entries) <= TOOLS_LIMIT:
        return [None]
    functions = [entry.get("function") for entry in entries if isinstance(entry, Mapping)]
    names = [entry.get("name") for entry in functions if isinstance(entry, Mapping)]
    return names if len(names) == len(entries) else [None]


def _tool(tool: Any, where: str) -> ToolSpec:
    if not isinstance(tool, dict):
        raise InputError(f"{where}: found {type(tool).__name__}, expected an object")
    kind, function = tool.get("type"), tool.get("function")
    if kind != "function":
        raise InputError(f"{where}.type: found {printable(repr(kind))[:80]}, expected 'function'")
    if not isinstance(function, dict):
        raise InputError(f"{where}.function: found {type(function).__name__}, expected an object")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{where}.function.name: found {printable(repr(name))[:80]}, expected 1 to 64 letters, "
            "digits, '_' or '-'"
        )
    description = function.get("description")
    if not isinstance(description, str | None):
        raise InputError(
            f"{where}.function.description: found {type(description).__name__}, expected a text"
        )
    parameters = function.get("parameters")
    if not isinstance(parameters, dict | None):
        raise InputError(
            f"{where}.function.parameters: found {type(parameters).__name__}, expected an object"
        )
    text = unicode_text(description or "", f"{where}.function.description")
    return ToolSpec(name, text, parameters)
