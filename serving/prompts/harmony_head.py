"""What a conversation in harmony begins with: the system's message and the developer's."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import printable
from gptoss_onnx.runtime.messages import plain_data
from gptoss_onnx.serving.prompts.messages import unicode_text
from gptoss_onnx.serving.prompts.namespaces import Namespace, tools_section
from gptoss_onnx.serving.prompts.tools import ToolSpec

EFFORTS = ("low", "medium", "high")
CHANNELS = (
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
)
FUNCTIONS_CHANNEL = "Calls to these tools must go to the commentary channel: 'functions'."


def system_text(
    identity: str,
    knowledge_cutoff: str,
    current_date: str,
    reasoning_effort: str | None,
    builtin_tools: Sequence[Namespace],
    has_functions: bool,
) -> str:
    """Return the text of the system's message; what is empty of the first three is left out.

    Raises InputError for an effort that the model was not trained on; None is `medium`.
    """
    effort = "medium" if reasoning_effort is None else reasoning_effort
    if effort not in EFFORTS:
        raise InputError(
            f"reasoning_effort: found {printable(repr(effort))[:80]}, expected one of "
            f"{', '.join(EFFORTS)}"
        )
    top = [
        identity,
        knowledge_cutoff and f"Knowledge cutoff: {knowledge_cutoff}",
        current_date and f"Current date: {current_date}",
    ]
    sections = ["\n".join(line for line in top if line), f"Reasoning: {effort}"]
    if builtin_tools:
        sections.append(tools_section(builtin_tools))
    sections.append(f"{CHANNELS}\n{FUNCTIONS_CHANNEL}" if has_functions else CHANNELS)
    return "\n\n".join(section for section in sections if section)


def developer_text(
    instructions: Sequence[str],
    tools: tuple[ToolSpec, ...],
    response_format: Mapping[str, Any] | None,
) -> str | None:
    """Return the text of the developer's message: instructions, functions, and the schema of the
    answer; None where there is nothing to say.

    Raises InputError for a `response_format` that is none of OpenAI's.
    """
    sections = ["# Instructions", "\n\n".join(instructions)] if instructions else []
    if tools:
        sections.append(tools_section([Namespace("functions", tools=tools)]))
    sections += _response_format(response_format)
    return "\n\n".join(sections) or None


def _response_format(response_format: Mapping[str, Any] | None) -> list[str]:
    kind = None if response_format is None else response_format.get("type")
    if response_format is None or kind in ("text", "json_object"):
        return []
    given = plain_data(response_format.get("json_schema"), "response_format.json_schema")
    if kind != "json_schema" or not isinstance(given, dict):
        raise InputError(
            f"response_format: found type {printable(repr(kind))[:80]}, expected text, "
            "json_object, or json_schema with a json_schema"
        )
    name, described = given.get("name"), given.get("description")
    if not isinstance(name, str) or not isinstance(described, str | None):
        raise InputError(
            "response_format.json_schema: found no name or description that is a text, expected a "
            "name"
        )
    schema = json.dumps(given.get("schema", {}), ensure_ascii=False, separators=(",", ":"))
    text = schema if not described else f"// {described}\n{schema}"
    unicode_text(name + text, "response_format.json_schema")
    return ["# Response Formats", f"## {name}", text]
