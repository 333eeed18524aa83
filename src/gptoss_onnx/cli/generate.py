"""`gptoss-onnx generate`: continue a prompt with a package, as text or token ids, while they come."""

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gptoss_onnx.cli.console import extra, is_verbose, kernel_options, print_json, verbose_option
from gptoss_onnx.cli.writer import Answer, Writer
from gptoss_onnx.errors import InputError

if TYPE_CHECKING:
    from gptoss_onnx.runtime import PackageFolder, Session, Tokenizer


def _token_ids(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    parts = [] if value is None else [part.strip() for part in value.split(",")]
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,18}", part):
            raise click.BadParameter(f"found {part!r}, expected token ids separated by commas, such as 1,2,3")
    return None if value is None else tuple(map(int, parts))


@click.command(short_help="Continue a prompt with a package.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--prompt", help="Text to continue, as it is.")
@click.option("--prompt-tokens", metavar="IDS", callback=_token_ids, help="Token ids to continue, such as 1,2,3.")
@click.option("--chat", is_flag=True, help="Take --prompt for a user's message and apply the chat template.")
@click.option("--system", help="With --chat: the system's message.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 takes the most probable token.")
@click.option("--top-k", type=int, default=0, help="Choose among the K most probable tokens; 0: all.")
@click.option("--top-p", type=float, default=1.0, help="Among the fewest that together are this probable; 1: all.")
@click.option("--min-p", type=float, default=0.0, help="Among those this fraction as probable as the first; 0: all.")
@click.option("--repetition-penalty", type=float, default=1.0, help="Above 1 discourages tokens already there.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Text to stop before; can be given several times.")
@click.option("--seed", type=int, help="Of the random choices; without it each run differs.")
@kernel_options
@click.option("--provider", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Threads; without it one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print tokens, text, finish reason and timings at the end.")
@verbose_option
def generate(
    package: Path,
    prompt: str | None,
    prompt_tokens: tuple[int, ...] | None,
    chat: bool,
    system: str | None,
    max_new_tokens: int,
    kernels: Literal["auto", "native", "portable"],
    activations: Literal["exact", "bf16", "int8"],
    provider: Literal["cpu", "cuda"],
    threads: int | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Continue a prompt with PACKAGE and print what comes.

    The text goes to stdout, token by token; timings go to stderr where that is a terminal.
    """
    _check_flags(prompt, prompt_tokens, chat, system)
    with extra("cpu"):
        from gptoss_onnx.runtime import Sampling, Session, open_package

    settings = Sampling(**sampling)
    opened = open_package(package)  # every mistake that shows without the graph is told before it is loaded
    tokenizer = _open_tokenizer(opened, needed=prompt is not None or bool(settings.stop))
    ids = _prompt_ids(tokenizer, prompt, prompt_tokens, system, chat)
    capacity = _capacity(opened, ids, max_new_tokens)
    begin = time.perf_counter()
    with Session.open(package, kernels, activations, provider, threads) as session:
        load_seconds = time.perf_counter() - begin
        writer = Writer(tokenizer, settings.stop, quiet=as_json)
        with (
            session.new_cache(1, capacity) as cache,
            session.generate(ids, settings, max_new_tokens=max_new_tokens, cache=cache) as generation,
        ):
            for token in generation:
                writer.push(token)
            writer.finish()
            answer = Answer.of(generation, len(ids), load_seconds)
        _report(session, answer, writer.text, as_json)


def _check_flags(prompt: str | None, tokens: tuple[int, ...] | None, chat: bool, system: str | None) -> None:
    if (prompt is None) == (tokens is None):
        found = "found neither" if prompt is None else "found both"
        raise click.UsageError(f"--prompt and --prompt-tokens: {found}, expected one of them")
    if prompt == "":
        raise InputError("--prompt: found an empty text, expected something to continue")
    if chat and prompt is None:
        raise click.UsageError("--chat applies the chat template to --prompt, found --prompt-tokens")
    if system is not None and not chat:
        raise click.UsageError("--system is part of a chat: add --chat")


def _open_tokenizer(package: "PackageFolder", needed: bool) -> "Tokenizer | None":
    """Return the package's tokenizer; None where it has none and none is needed."""
    from gptoss_onnx.runtime import Tokenizer
    from gptoss_onnx.runtime.text import TOKENIZER_FILE

    return Tokenizer.open(package.folder) if needed or (package.folder / TOKENIZER_FILE).is_file() else None


def _prompt_ids(
    tokenizer: "Tokenizer | None",
    prompt: str | None,
    tokens: tuple[int, ...] | None,
    system: str | None,
    chat: bool,
) -> list[int]:
    from gptoss_onnx.runtime import chat_messages

    if prompt is None or tokenizer is None:
        return list(tokens or ())
    return tokenizer.encode_chat(chat_messages(prompt, system)) if chat else tokenizer.encode(prompt)


def _capacity(package: "PackageFolder", ids: list[int], max_new_tokens: int) -> int:
    """Return how many tokens the cache must hold; raises InputError for a prompt the model cannot take."""
    vocabulary, longest = (package.model_size(key) for key in ("vocab_size", "max_position_embeddings"))
    if not ids:
        raise InputError("--prompt: found no token in it, expected at least one")
    for place, token in enumerate(ids):
        if token >= vocabulary:
            raise InputError(f"prompt: token {place} is {token}, expected 0 to {vocabulary - 1} (the vocabulary)")
    if len(ids) > longest:
        raise InputError(f"prompt: found {len(ids)} tokens, expected at most {longest}, the longest this model takes")
    return min(len(ids) + max_new_tokens, longest)


def _report(session: "Session", answer: Answer, text: str | None, as_json: bool) -> None:
    if as_json:
        print_json(
            answer.to_json(text)
            | {"activations": session.activations, "kernels": session.kernels, "provider": session.provider}
        )
    elif is_verbose() or sys.stderr.isatty():
        click.echo(
            f"{answer.summary()}; {session.kernels} kernels, {session.activations}, {session.provider}", err=True
        )
