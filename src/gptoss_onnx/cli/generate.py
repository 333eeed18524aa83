"""`gptoss-onnx generate`: continue a prompt with a package, as text or token ids, while they
come.
"""

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.cli.console import extra, is_verbose, print_json, verbose_option
from gptoss_onnx.cli.text_options import (
    read_prompt,
    reasoning_options,
    sampling,
    sampling_options,
    session_options,
    template_variables,
)
from gptoss_onnx.cli.writer import Answer, Writer
from gptoss_onnx.errors import InputError

if TYPE_CHECKING:
    from gptoss_onnx.runtime import (
        Package,
        Prompt,
        Sampling,
        Session,
        TextGeneration,
        Tokenizer,
    )

NEW_TOKENS = 128  # of a text; an answer that begins with thoughts gets more


def _token_ids(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    parts = [] if value is None else [part.strip() for part in value.split(",")]
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,18}", part):
            raise click.BadParameter(
                f"found {part!r}, expected token ids separated by commas, such as 1,2,3"
            )
    return None if value is None else tuple(map(int, parts))


@click.command(short_help="Continue a prompt with a package.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("-p", "--prompt", help="Text to continue, as it is.")
@click.option(
    "--prompt-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File with the text to continue, all of it; - is stdin.",
)
@click.option(
    "--prompt-tokens",
    metavar="IDS",
    callback=_token_ids,
    help="Token ids to continue, such as 1,2,3.",
)
@click.option(
    "--chat", is_flag=True, help="Take the prompt for a user's message and apply the chat template."
)
@click.option("--system", help="With --chat: the system's message.")
@reasoning_options
@click.option(
    "-n",
    "--max-new-tokens",
    type=click.IntRange(min=1),
    help="[default: 128; with --chat 4096 for a model that thinks before it answers]",
)
@sampling_options
@session_options
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print tokens, text, finish reason and timings at the end.",
)
@verbose_option
def generate(
    package: Path,
    prompt: str | None,
    prompt_file: Path | None,
    prompt_tokens: tuple[int, ...] | None,
    chat: bool,
    system: str | None,
    reasoning_effort: str | None,
    show_reasoning: bool,
    max_new_tokens: int | None,
    kernels: Kernels,
    activations: Activations,
    provider: Provider,
    threads: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Continue a prompt with PACKAGE and print what comes.

    The text goes to stdout, token by token. With --chat only the answer does; what the model thinks
    goes to stderr. Timings go to stderr if it is a terminal, or with --verbose.
    """
    if prompt_file is not None:
        _check_one(prompt, prompt_tokens, prompt_file)
        prompt = read_prompt(prompt_file)
    _check_flags(prompt, prompt_tokens, chat, system, reasoning_effort)
    with extra("cpu"):
        from gptoss_onnx.runtime import Session, open_package
        from gptoss_onnx.runtime.stops import end_tokens

    # mistakes that show without the graph are reported before it is loaded
    opened = open_package(package)
    tokenizer = _open_tokenizer(opened, needed=prompt is not None or bool(options["stop"]))
    continued = _prompt(tokenizer, prompt, prompt_tokens, system, reasoning_effort, chat)
    ends = end_tokens(opened, tokenizer, chat, opened.manifest.vocab_size)
    settings = sampling(options, tokenizer, ends)
    _check_prompt(opened, continued)
    begin = time.perf_counter()
    with Session.open(package, kernels, activations, provider, threads) as session:
        load_seconds = time.perf_counter() - begin
        writer = Writer(quiet=as_json, show_reasoning=show_reasoning)
        if tokenizer is None:
            said, answer = _print_ids(
                session, continued, settings, max_new_tokens, writer, load_seconds
            )
        else:
            said, answer = _print_text(
                session, continued, tokenizer, settings, max_new_tokens, writer, load_seconds
            )
        _report(session, answer, said, as_json)


def _print_text(
    session: "Session",
    prompt: "Prompt",
    tokenizer: "Tokenizer",
    settings: "Sampling",
    max_new_tokens: int | None,
    writer: Writer,
    load_seconds: float,
) -> tuple[dict[str, Any], Answer]:
    """Print a text or an answer; returns what was said and how it went."""
    from gptoss_onnx.runtime.text_generation import stream_text

    text: TextGeneration[Any]
    with stream_text(
        session, prompt, tokenizer, settings, max_new_tokens, text_tokens=NEW_TOKENS
    ) as text:
        for piece in text:
            writer.piece(piece)
        writer.finish()
    said: dict[str, Any] = {"text": writer.text}
    if prompt.is_chat:
        calls = [message for message in text.messages if message.kind == "tool_call"]
        said |= {
            "content": writer.text,
            "reasoning": writer.reasoning,
            "tool_calls": [{"recipient": call.recipient, "arguments": call.text} for call in calls],
        }
    return said, Answer.of(text, len(prompt.ids), load_seconds)


def _print_ids(
    session: "Session",
    prompt: "Prompt",
    settings: "Sampling",
    max_new_tokens: int | None,
    writer: Writer,
    load_seconds: float,
) -> tuple[dict[str, Any], Answer]:
    """Print the ids of a package that has no tokenizer."""
    from gptoss_onnx.runtime.stops import warn_endless

    count = max_new_tokens or NEW_TOKENS
    with session.generate(prompt.ids, settings, max_new_tokens=count) as generation:
        if generation.endless and max_new_tokens is None:
            warn_endless(session.package.folder)
        for token in generation:
            writer.token(token)
        writer.finish()
        return {"text": None}, Answer.of(generation, len(prompt.ids), load_seconds)


def _check_one(prompt: str | None, tokens: tuple[int, ...] | None, file: Path | None) -> None:
    ways = {"--prompt": prompt, "--prompt-tokens": tokens, "--prompt-file": file}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        found = "found neither" if not given else f"found {' and '.join(given)}"
        raise click.UsageError(
            f"--prompt, --prompt-file and --prompt-tokens: {found}, expected one of them"
        )


def _check_flags(
    prompt: str | None,
    tokens: tuple[int, ...] | None,
    chat: bool,
    system: str | None,
    effort: str | None,
) -> None:
    _check_one(prompt, tokens, None)
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


def _open_tokenizer(package: "Package", needed: bool) -> "Tokenizer | None":
    """Return the package's tokenizer, or None if it has no tokenizer and needs none."""
    from gptoss_onnx.package import TOKENIZER_FILE
    from gptoss_onnx.runtime import Tokenizer

    return (
        Tokenizer.open(package.folder)
        if needed or (package.folder / TOKENIZER_FILE).is_file()
        else None
    )


def _prompt(
    tokenizer: "Tokenizer | None",
    prompt: str | None,
    tokens: tuple[int, ...] | None,
    system: str | None,
    effort: str | None,
    chat: bool,
) -> "Prompt":
    from gptoss_onnx.runtime import Prompt, chat_messages

    if prompt is None or tokenizer is None:
        return Prompt(tokens or (), is_chat=False)
    if not chat:
        return Prompt.of(prompt, tokenizer)
    return Prompt.of(
        chat_messages(prompt, system), tokenizer, template_variables(tokenizer, effort)
    )


def _check_prompt(package: "Package", prompt: "Prompt") -> None:
    from gptoss_onnx.runtime.text_generation import check_prompt

    if not prompt.ids:
        raise InputError("--prompt: found no token in it, expected at least one")
    check_prompt(prompt, package.manifest.vocab_size, package.manifest.longest)


def _report(session: "Session", answer: Answer, said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        ran = {
            "activations": session.activations,
            "kernels": session.kernels,
            "provider": session.provider,
        }
        print_json(answer.to_json(said) | ran)
    if is_verbose() or (sys.stderr.isatty() and not as_json):
        click.echo(
            f"{answer.summary()}; {session.kernels} kernels, {session.activations}, "
            f"{session.provider}",
            err=True,
        )
