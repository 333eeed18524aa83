"""Tools and the form of the text, in the words of this API and in those of a chat completion."""

import re
from dataclasses import dataclass
from typing import Any

from gptoss_onnx.serving.errors import wrong_field
from gptoss_onnx.serving.fields import Fields, shown

TOOL_LIMIT = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME_WORDS = "1 to 64 letters, digits, _ or -"


@dataclass(frozen=True)
class Told:
    """A field in both forms.

    Attributes:
        chat: as a chat completion's request has it, which prompts and constraints are made of.
        echo: as the response repeats it.
    """

    chat: Any
    echo: Any


def read_tools(fields: Fields) -> tuple[Told, Told]:
    """Return the functions in the field `tools`, and `tool_choice`: whether the model may, must or
    must not call, and what.

    Where the choice is a list of allowed tools, the model is told of these alone. Raises ApiError
    for any other kind of tool.
    """
    tools = _read_functions(fields)
    given = fields.value.get("tool_choice")
    if given is None:
        return tools, Told("auto", "auto")
    if isinstance(given, str):
        word = fields.one_of("tool_choice", ("none", "auto", "required"))
        if word == "required" and not tools.echo:
            raise fields.wrong("tool_choice", "tools to choose from")
        return tools, Told(word, word)
    choice = Fields(given, "tool_choice")
    if choice.one_of("type", ("function", "allowed_tools")) == "function":
        name = _known(choice, tools)
        chat = {"type": "function", "function": {"name": name}}
        return tools, Told(chat, {"type": "function", "name": name})
    mode = choice.one_of("mode", ("auto", "required"))
    names = [_known(entry, tools) for entry in choice.objects("tools", TOOL_LIMIT, least=1)]
    allowed = [tool for tool in tools.chat if tool["function"]["name"] in names]
    echo = [{"type": "function", "name": name} for name in names]
    choice_echo = {"type": "allowed_tools", "mode": mode, "tools": echo}
    return Told(allowed, tools.echo), Told(mode, choice_echo)


def read_format(fields: Fields) -> Told:
    """Return the form that `text.format` asks for: text, an object, or what a schema allows."""
    plain = {"type": "text"}
    text = fields.object("text")
    if text is not None:
        text.one_of("verbosity", ("low", "medium", "high"), "medium")  # has no meaning for a model
    form = None if text is None else text.object("format")
    if form is None:
        return Told(plain, plain)
    kind = form.one_of("type", ("text", "json_object", "json_schema"))
    if kind != "json_schema":
        return Told({"type": kind}, {"type": kind})
    schema: dict[str, Any] = {
        "name": form.matching("name", _NAME, _NAME_WORDS),
        "schema": form.needed_object("schema").value,
        "strict": form.boolean("strict", True),
    }
    if form.has("description"):
        schema["description"] = form.text("description")
    return Told({"type": kind, "json_schema": schema}, {"type": kind, **schema})


def _read_functions(fields: Fields) -> Told:
    chat: list[dict[str, Any]] = []
    echo: list[dict[str, Any]] = []
    for tool in fields.objects("tools", TOOL_LIMIT):
        kind = tool.value.get("type")
        if kind != "function":
            expected = '"function": this server runs no tools itself'
            raise wrong_field(tool.path("type"), shown(kind), expected)
        name = tool.matching("name", _NAME, _NAME_WORDS)
        if any(name == other["name"] for other in echo):
            raise tool.wrong("name", "a name that no other tool has")
        parameters = tool.object("parameters")
        function: dict[str, Any] = {"name": name, "strict": tool.boolean("strict", True)}
        if tool.has("description"):
            function["description"] = tool.text("description")
        function["parameters"] = None if parameters is None else parameters.value
        echo.append({"type": "function", **function})
        known = {key: value for key, value in function.items() if value is not None}
        chat.append({"type": "function", "function": known})
    return Told(chat, echo)


def _known(choice: Fields, tools: Told) -> str:
    """Return the name of a function that is among the tools."""
    choice.one_of("type", ("function",))
    name = choice.text("name")
    if all(name != tool["name"] for tool in tools.echo):
        raise choice.wrong("name", "the name of one of the tools")
    return name
