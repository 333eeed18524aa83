"""ChatTemplate: render messages with the checkpoint's Jinja template, sandboxed, as transformers does."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Self

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.runtime.package import read_own_json

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Message = Mapping[str, Any]


class ChatTemplate:
    """A compiled template and the special tokens it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], origin: Path) -> None:
        self._special_tokens, self._origin = dict(special_tokens), origin
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise PackageError(f"{origin}: not a Jinja template ({error}); export with a corrected one") from error

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read `chat_template.jinja`, else the template in `tokenizer_config.json`.

        Raises PackageError when the package has neither, or a template that does not compile.
        """
        config = read_own_json(folder, TOKENIZER_CONFIG)
        origin = folder / TEMPLATE_FILE
        if origin.is_file():
            source: Any = origin.read_text(encoding="utf-8")
        else:
            origin, source = folder / TOKENIZER_CONFIG, config.get("chat_template")
        if isinstance(source, list):  # several named templates
            source = {entry.get("name"): entry.get("template") for entry in source}.get("default")
        if not isinstance(source, str):
            raise PackageError(
                f"{folder}: found no chat template ({TEMPLATE_FILE}, or one in {TOKENIZER_CONFIG}); "
                "pass the text as it is, with --prompt"
            )
        return cls(source, _special_tokens(config), origin)

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of a conversation.

        `messages` have `role` and `content`; `add_generation_prompt` ends with the beginning of a reply;
        `variables` are the template's own, for instance `reasoning_effort`. Raises InputError when the
        template refuses them.
        """
        given = {
            "tools": None,
            "documents": None,
            **self._special_tokens,
            **(variables or {}),
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._template.render(given)
        except jinja2.TemplateError as error:
            raise InputError(f"{self._origin}: refuses these messages: {error}") from error


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks replies for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML characters.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    tokens = {}
    for name in _SPECIAL_TOKENS:
        entry = config.get(name)
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str):
            tokens[name] = content
    return tokens
