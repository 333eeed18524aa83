"""OpenAI's own renderer of harmony, and what a request of the chat API says to it.

It lives in the package openai-harmony; its vocabulary is made of the published tokenizer, which
tests/clients/published.sh fetches.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai_harmony as harmony
import pytest

from support.openai_harmony import write_vocabulary

PUBLISHED = Path(__file__).parents[2] / "build" / "published"
BUILTIN = ("browser", "python")


def published_tokenizer() -> Path:
    """Return the folder of the published tokenizer, or skip the test."""
    if not (PUBLISHED / ".complete").is_file():
        pytest.skip("the published tokenizer is not there: tests/clients/published.sh fetches it")
    return PUBLISHED / "tokenizer"


def load_oracle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> harmony.HarmonyEncoding:
    """Return the renderer; its vocabulary is written to a folder."""
    write_vocabulary(published_tokenizer() / "tokenizer.json", folder)
    monkeypatch.setenv("TIKTOKEN_ENCODINGS_BASE", os.fspath(folder))  # else it downloads one
    return harmony.load_harmony_encoding("HarmonyGptOss")


def rendered(oracle: harmony.HarmonyEncoding, request: Mapping[str, Any]) -> list[int]:
    """Return the oracle's tokens of a request, whose fields are those of `ChatPrompt`."""
    conversation = harmony.Conversation.from_messages(list(_messages(request)))
    # It drops thoughts by a rule of its own, which the next lines of this file state properly.
    keep = harmony.RenderConversationConfig(auto_drop_analysis=False)
    return oracle.render_conversation_for_completion(conversation, harmony.Role.ASSISTANT, keep)


def _messages(request: Mapping[str, Any]) -> Iterator[harmony.Message]:
    message, role = harmony.Message.from_role_and_content, harmony.Role
    yield message(role.SYSTEM, _system(request))
    rest = list(request["messages"])
    instructions = [request["instructions"]] if request.get("instructions") is not None else []
    while rest and rest[0]["role"] in ("system", "developer"):
        instructions.append(rest.pop(0)["content"])
    tools = request.get("tools") or []
    if instructions or tools:
        developer = harmony.DeveloperContent.new()
        if instructions:
            developer = developer.with_instructions("\n\n".join(instructions))
        if tools:
            developer = developer.with_function_tools([_tool(tool["function"]) for tool in tools])
        yield message(role.DEVELOPER, developer)
    functions = {tool["function"]["name"] for tool in tools}
    names: dict[str, str] = {}
    for place, said in enumerate(rest):
        if said["role"] == "user":
            yield message(role.USER, said["content"])
        elif said["role"] == "assistant":
            is_over = any(
                later["role"] == "assistant" and not later.get("tool_calls")
                for later in rest[place:]
            )
            yield from _assistant(said, is_over, functions)
            names |= {c["id"]: c["function"]["name"] for c in said.get("tool_calls") or []}
        elif said["role"] == "tool":
            name, channel, _ = _address(names[said["tool_call_id"]], functions)
            author = harmony.Author.new(role.TOOL, name)
            result = harmony.Message.from_author_and_content(author, said["content"])
            yield result.with_channel(channel).with_recipient("assistant")
        else:
            developer = harmony.DeveloperContent.new().with_instructions(said["content"])
            yield message(role.DEVELOPER, developer)


def _system(request: Mapping[str, Any]) -> harmony.SystemContent:
    efforts = {effort.value.lower(): effort for effort in harmony.ReasoningEffort}
    content = harmony.SystemContent.new()
    content = content.with_conversation_start_date(request["current_date"])
    content = content.with_reasoning_effort(efforts[request.get("reasoning_effort") or "medium"])
    if "browser" in request.get("builtin_tools", ()):
        content = content.with_browser_tool()
    if "python" in request.get("builtin_tools", ()):
        content = content.with_python_tool()
    return content


def _tool(function: Mapping[str, Any]) -> harmony.ToolDescription:
    return harmony.ToolDescription.new(
        function["name"], function.get("description") or "", function.get("parameters")
    )


def _assistant(
    said: Mapping[str, Any], is_over: bool, functions: set[str]
) -> Iterator[harmony.Message]:
    def message(text: str) -> harmony.Message:
        return harmony.Message.from_role_and_content(harmony.Role.ASSISTANT, text)

    calls = said.get("tool_calls") or []
    if said.get("reasoning_content") and not is_over:
        yield message(said["reasoning_content"]).with_channel("analysis")
    if said.get("content") or (said.get("content") is not None and not calls):
        channel = "commentary" if calls else "final"
        yield message(said["content"]).with_channel(channel)
    for call in calls:
        name, channel, content_type = _address(call["function"]["name"], functions)
        made = message(call["function"]["arguments"]).with_channel(channel)
        yield made.with_recipient(name).with_content_type(content_type)


def _address(name: str, functions: set[str]) -> tuple[str, str, str]:
    is_builtin = name == "python" or name.startswith("browser.")
    if is_builtin and name not in functions:
        return name, "analysis", "code"
    return f"functions.{name}", "commentary", "<|constrain|>json"
