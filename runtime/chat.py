"""ChatTemplate: render messages with the checkpoint's Jinja template, as transformers does, within
limits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.package import TEMPLATE_FILE, TOKENIZER_CONFIG, read_own_file, read_own_json
from gptoss_onnx.runtime.messages import Message, plain_data, plain_messages
from gptoss_onnx.runtime.template_process import TemplateProcess

TEMPLATE_LIMIT = 1_000_000  # bytes; the published one has 17 thousand
_SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


class ChatTemplate:
    """A compiled template and the special tokens it may name; threads may share it.

    Attributes:
        source: its text.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], origin: Path) -> None:
        self.source, self._special_tokens = source, dict(special_tokens)
        self._process = TemplateProcess(source, origin)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read `chat_template.jinja`, else the template in `tokenizer_config.json`.

        Raises PackageError when the package has neither, or a template that does not compile.
        """
        config = read_own_json(folder, TOKENIZER_CONFIG)
        origin, source = folder / TEMPLATE_FILE, _read_template(folder)
        if source is None:
            origin, source = folder / TOKENIZER_CONFIG, config.get("chat_template")
        if isinstance(source, list):  # several named templates
            named = [
                entry
                for entry in source
                if isinstance(entry, dict) and entry.get("name") == "default"
            ]
            source = named[-1].get("template") if named else None
        if not isinstance(source, str):
            raise PackageError(
                f"{folder}: found no chat template ({TEMPLATE_FILE}, or one in "
                f"{TOKENIZER_CONFIG}); "
                "pass the text as it is, with --prompt"
            )
        return cls(source, _special_tokens(config), origin)

    def reads(self, variable: str) -> bool:
        """Say whether the template has a use for a variable."""
        return variable in self.source

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of a conversation.

        `messages` have `role` and `content`, and what else SDKs give them, see `plain_messages`;
        `add_generation_prompt` ends with the beginning of a reply; `variables` are the template's
        own, for instance `reasoning_effort` and `tools`. Raises InputError when they are wrong or
        the template refuses them, and PackageError when it goes beyond its limits.
        """
        return self.render_plain(*plain_input(messages, variables), add_generation_prompt)

    def render_plain(
        self,
        messages: list[dict[str, Any]],
        variables: Mapping[str, Any],
        add_generation_prompt: bool,
    ) -> str:
        """Return the text of what `plain_input` returned."""
        given = {"tools": None, "documents": None, **self._special_tokens, **variables}
        given |= {"messages": messages, "add_generation_prompt": add_generation_prompt}
        return self._process.render(given)


def plain_input(
    messages: Sequence[Message], variables: Mapping[str, Any] | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return messages and variables out of JSON's types alone; raises InputError where that is not
    possible.
    """
    if not isinstance(variables, Mapping | None):
        raise InputError(f"variables: found {type(variables).__name__}, expected a mapping")
    plain = plain_data(dict(variables or {}), "variables")
    assert isinstance(plain, dict)
    return plain_messages(messages), plain


def _read_template(folder: Path) -> Any:
    try:
        return read_own_file(folder, TEMPLATE_FILE, TEMPLATE_LIMIT).decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise PackageError(
            f"{folder / TEMPLATE_FILE}: found no UTF-8 text ({error.reason}), expected a Jinja "
            "template"
        ) from error


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in _SPECIAL_TOKENS:
        entry = config.get(name)
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str):
            tokens[name] = content
    return tokens
