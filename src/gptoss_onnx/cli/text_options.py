"""The options that `generate` and `chat` share: how tokens are chosen, what ends a text, and
thoughts.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

import click

from gptoss_onnx.choices import Provider
from gptoss_onnx.cli.console import Command, kernel_options
from gptoss_onnx.errors import InputError

if TYPE_CHECKING:
    from gptoss_onnx.runtime import Package, Sampling, Tokenizer

STDIN = "-"
PROMPT_LIMIT = 16_000_000  # bytes of a prompt in a file
_Decorator = Callable[[Any], Any]  # what click.option returns


def sampling_options(command: Command) -> Command:
    """Add how tokens are chosen and what ends a text; the command gets one argument each, for
    `sampling`.
    """
    options: tuple[_Decorator, ...] = (
        click.option(
            "--temperature",
            type=float,
            default=0.0,
            show_default=True,
            help="0 takes the most probable token.",
        ),
        click.option(
            "--top-k", type=int, default=0, help="Choose among the K most probable tokens; 0: all."
        ),
        click.option(
            "--top-p",
            type=float,
            default=1.0,
            help="Among the fewest that together are this probable; 1: all.",
        ),
        click.option(
            "--min-p",
            type=float,
            default=0.0,
            help="Among those this fraction as probable as the first; 0: all.",
        ),
        click.option(
            "--repetition-penalty",
            type=float,
            default=1.0,
            help="Above 1 discourages tokens already there.",
        ),
        click.option(
            "--stop",
            multiple=True,
            metavar="TEXT",
            help="Text to stop before; can be given several times.",
        ),
        click.option(
            "--stop-token",
            "stop_tokens",
            multiple=True,
            metavar="TOKEN",
            help="Token to stop after besides the package's: an id, or a special token such as "
            "<|end|>.",
        ),
        click.option(
            "--seed", type=int, help="Of the random choices; without it each run differs."
        ),
    )
    return _all(options, command)


def reasoning_options(command: Command) -> Command:
    """Add how much a model thinks, and whether that is shown."""
    options: tuple[_Decorator, ...] = (
        click.option(
            "--reasoning-effort",
            type=click.Choice(["low", "medium", "high"]),
            help="How long the model thinks before it answers.",
        ),
        click.option(
            "--show-reasoning/--hide-reasoning",
            default=True,
            show_default=True,
            help="Print its thoughts, dimmed, to stderr.",
        ),
    )
    return _all(options, command)


def speculation_options(command: Command) -> Command:
    """Add whether several tokens are guessed and checked in one call, and by what."""
    options: tuple[_Decorator, ...] = (
        click.option(
            "--speculate",
            type=click.IntRange(0, 64),
            default=0,
            metavar="N",
            help="Guess up to N tokens by what followed the same ones before, and check them in "
            "one call: faster where a text repeats, and the same text. 0: none.",
        ),
        click.option(
            "--draft",
            type=click.Path(path_type=Path),
            metavar="PACKAGE",
            help="With --speculate: a smaller model of the same vocabulary guesses.",
        ),
    )
    return _all(options, command)


def refuse_draft(package: "Package", draft: Path | None, speculate: int) -> None:
    """Refuse a draft that cannot be used, before any graph is loaded; raises InputError."""
    from gptoss_onnx.runtime import open_package
    from gptoss_onnx.runtime.speculation.draft_check import check_draft

    if draft is None:
        return
    if speculate == 0:
        raise click.UsageError("--draft guesses tokens: add --speculate with how many at most")
    check_draft(package, open_package(draft))


def session_options(command: Command) -> Command:
    """Add what runs the package, and on how many threads."""
    provider = click.option(
        "--provider", type=click.Choice(get_args(Provider)), default="cpu", show_default=True
    )
    threads = click.option(
        "--threads", type=click.IntRange(min=1), help="Threads; without it one a core."
    )
    return kernel_options(provider(threads(command)))


def sampling(
    options: dict[str, Any], tokenizer: "Tokenizer | None", ends: Sequence[int]
) -> "Sampling":
    """Return the settings for what `sampling_options` gave; stop tokens join `ends`, the package's
    own.

    Raises InputError for a stop token that is neither an id nor a special token of the tokenizer.
    """
    from gptoss_onnx.runtime import Sampling

    options = dict(options)
    given = options.pop("stop_tokens")
    if not given:
        return Sampling(**options)
    tokens = [_stop_token(text, tokenizer) for text in given]
    return Sampling(**options, stop_tokens=(*ends, *tokens))


def template_variables(tokenizer: "Tokenizer", reasoning_effort: str | None) -> dict[str, str]:
    """Return the variables for the chat template; raises InputError if the template does not read
    the effort.
    """
    if reasoning_effort is None:
        return {}
    if not tokenizer.chat_template.reads("reasoning_effort"):
        raise InputError(
            "--reasoning-effort: this package's chat template does not read it; leave it out"
        )
    return {"reasoning_effort": reasoning_effort}


def read_prompt(path: Path) -> str:
    """Return the text of a file, of a pipe, or of stdin for `-`; raises InputError if that is not
    UTF-8.

    This waits for a pipe, such as bash's `<(command)`, because its user also writes it.
    """
    from gptoss_onnx.files import read_file

    where = "stdin" if str(path) == STDIN else str(path)
    if str(path) == STDIN:
        content = _read_stream(sys.stdin.buffer, where)
    elif path.is_fifo():
        with path.open("rb") as pipe:
            content = _read_stream(pipe, where)
    else:
        try:
            content = read_file(path, PROMPT_LIMIT, InputError)
        except FileNotFoundError:
            raise InputError(f"{path}: found no such file, expected the prompt in it") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: found no UTF-8 at byte {error.start}, expected a text"
        ) from error


def _read_stream(stream: BinaryIO, where: str) -> bytes:
    content = stream.read(PROMPT_LIMIT + 1)
    if len(content) > PROMPT_LIMIT:
        raise InputError(
            f"{where}: found more than {PROMPT_LIMIT} bytes, expected at most that many in a prompt"
        )
    return content


def _stop_token(text: str, tokenizer: "Tokenizer | None") -> int:
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    special = {} if tokenizer is None else tokenizer.special_tokens
    if text not in special:
        raise InputError(
            f"--stop-token: found {text!r}, expected a token id or a special token of this package"
        )
    return special[text]


def _all(options: Sequence[_Decorator], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
