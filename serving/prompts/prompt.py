"""render_chat: a request's conversation to the tokens that the model continues."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from gptoss_onnx.errors import InputError
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.serving.prompts.builtin_tools import builtin_namespaces
from gptoss_onnx.serving.prompts.harmony_chat import HarmonyText, harmony_texts, harmony_tokens
from gptoss_onnx.serving.prompts.harmony_head import developer_text, system_text
from gptoss_onnx.serving.prompts.messages import ChatMessage, read_messages, unicode_text
from gptoss_onnx.serving.prompts.template_chat import template_tokens
from gptoss_onnx.serving.prompts.tools import ToolSpec, offered, read_tools

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
KNOWLEDGE_CUTOFF = "2024-06"


def _today() -> str:
    return date.today().isoformat()


@dataclass(frozen=True)
class ChatPrompt:
    """What a request says to the model, as it came: `render_chat` checks it.

    Attributes:
        messages: OpenAI's chat messages.
        tools: functions of the caller's, as the chat API has them.
        tool_choice: None, `none`, `auto`, `required`, or a function by its name. With `none` the
            model is not told of the tools.
        reasoning_effort: `low`, `medium` or `high`; None is `medium`. Other models than gpt-oss get
            what their templates make of it; `none` turns `enable_thinking` off there.
        builtin_tools: some of `browser` and `python`, which gpt-oss was trained with.
        instructions: stand before those of the messages.
        response_format: as in the chat API; a schema is shown to gpt-oss.
        variables: the template's own, for models without harmony.
        identity, knowledge_cutoff, current_date: of the system's message; empty ones are left out.
            The date is today by default, YYYY-MM-DD.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    builtin_tools: Sequence[str] = ()
    instructions: str | None = None
    response_format: Mapping[str, Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    identity: str = IDENTITY
    knowledge_cutoff: str = KNOWLEDGE_CUTOFF
    current_date: str = field(default_factory=_today)


def render_chat(tokenizer: Tokenizer, prompt: ChatPrompt) -> list[int]:
    """Return the token ids of a conversation, up to the beginning of the assistant's answer.

    Control tokens that a message spells are plain text. Raises InputError, in one line that names
    the field, for what is wrong, and PackageError where the package's tokenizer or template fails.
    """
    messages, tools = read_messages(prompt.messages), read_tools(prompt.tools)
    tools = offered(tools, prompt.tool_choice)
    if prompt.instructions is not None:
        unicode_text(prompt.instructions, "instructions")
    if is_rendered_here(tokenizer):
        return harmony_tokens(tokenizer, _harmony(prompt, messages, tools))
    if prompt.builtin_tools:
        raise InputError("builtin_tools: found some, expected none: this model has no such tools")
    variables = dict(prompt.variables)
    if prompt.reasoning_effort is not None:
        variables.setdefault("reasoning_effort", prompt.reasoning_effort)
        variables.setdefault("enable_thinking", prompt.reasoning_effort != "none")
    return template_tokens(tokenizer, prompt.instructions, messages, tools, variables)


def is_rendered_here(tokenizer: Tokenizer) -> bool:
    """Say whether conversations are rendered by us: where the tokenizer has all of harmony's
    control tokens. One without `<|call|>`, say, belongs to a model that cannot call anything; its
    package's template knows what it was trained on.
    """
    tokens = tokenizer.harmony
    return tokens is not None and None not in (tokens.constrain, tokens.return_, tokens.call)


def _harmony(
    prompt: ChatPrompt, messages: tuple[ChatMessage, ...], tools: tuple[ToolSpec, ...]
) -> list[HarmonyText]:
    instructions = [] if prompt.instructions is None else [prompt.instructions]
    first = 0
    while first < len(messages) and messages[first].role in ("system", "developer"):
        instructions.append(messages[first].content or "")
        first += 1
    system = system_text(
        prompt.identity,
        prompt.knowledge_cutoff,
        prompt.current_date,
        prompt.reasoning_effort,
        builtin_namespaces(prompt.builtin_tools),
        has_functions=bool(tools),
    )
    developer = developer_text(instructions, tools, prompt.response_format)
    texts = [HarmonyText("system", system)]
    if developer is not None:
        texts.append(HarmonyText("developer", developer))
    return [*texts, *harmony_texts(messages[first:], tools)]
