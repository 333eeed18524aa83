"""The prompt of `generate`: the options that give it, and the tokens that they mean."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptoss_onnx.cli.text_options import template_variables
from gptoss_onnx.errors import InputError

if TYPE_CHECKING:
    from gptoss_onnx.runtime import Package, Prompt, Tokenizer


def token_ids(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return the ids that an option names; None where it is not given."""
    parts = [] if value is None else [part.strip() for part in value.split(",")]
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,18}", part):
            raise click.BadParameter(
                f"found {part!r}, expected token ids separated by commas, such as 1,2,3"
            )
    return None if value is None else tuple(map(int, parts))


def check_one(prompt: str | None, tokens: tuple[int, ...] | None, file: Path | None) -> None:
    """Refuse a prompt that is given in no way, or in several."""
    ways = {"--prompt": prompt, "--prompt-tokens": tokens, "--prompt-file": file}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        found = "found neither" if not given else f"found {' and '.join(given)}"
        raise click.UsageError(
            f"--prompt, --prompt-file and --prompt-tokens: {found}, expected one of them"
        )


def check_flags(
    prompt: str | None,
    tokens: tuple[int, ...] | None,
    chat: bool,
    system: str | None,
    effort: str | None,
) -> None:
    """Refuse options that do not go together."""
    check_one(prompt, tokens, None)
    if prompt == "":
        raise InputError("--prompt: found an empty text, expected something to continue")
    if chat and prompt is None:
        raise click.UsageError(
            "--chat applies the chat template to --prompt, found --prompt-tokens"
        )
    if system is not None and not chat:
        raise click.UsageError("--system is part of a chat: add --chat")
    if effort is not None and not chat:
        raise click.UsageError("--reasoning-effort is part of a chat: add --chat")


def open_tokenizer(package: "Package", needed: bool) -> "Tokenizer | None":
    """Return the package's tokenizer, or None if it has no tokenizer and needs none."""
    from gptoss_onnx.package import TOKENIZER_FILE
    from gptoss_onnx.runtime import Tokenizer

    return (
        Tokenizer.open(package.folder)
        if needed or (package.folder / TOKENIZER_FILE).is_file()
        else None
    )


def prompt_of(
    tokenizer: "Tokenizer | None",
    prompt: str | None,
    tokens: tuple[int, ...] | None,
    system: str | None,
    effort: str | None,
    chat: bool,
) -> "Prompt":
    """Return the prompt: tokens as given, a text's, or a chat's."""
    from gptoss_onnx.runtime import Prompt, chat_messages

    if prompt is None or tokenizer is None:
        return Prompt(tokens or (), is_chat=False)
    if not chat:
        return Prompt.of(prompt, tokenizer)
    return Prompt.of(
        chat_messages(prompt, system), tokenizer, template_variables(tokenizer, effort)
    )


def check_length(package: "Package", prompt: "Prompt") -> None:
    """Refuse a prompt that the package's model cannot take."""
    from gptoss_onnx.runtime.text_generation import check_prompt

    if not prompt.ids:
        raise InputError("--prompt: found no token in it, expected at least one")
    check_prompt(prompt, package.manifest.vocab_size, package.manifest.longest)
