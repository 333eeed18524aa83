"""The options of `serve`, in the groups that its help shows, and the keys that they name."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.cli.console import Command
from gptoss_onnx.cli.grouped import GroupedOption
from gptoss_onnx.errors import InputError
from gptoss_onnx.files import read_file

KEY_VARIABLE = "GPTOSS_ONNX_API_KEYS"
_KEYS_LIMIT = 1_000_000  # bytes of a file of keys
_ADDRESS, _SIZES = "Where it listens, and who may call", "What it holds"
_MODEL, _LIMITS = "What runs the model", "Limits"
_Decorator = Callable[[Any], Any]


def serve_options(command: Command) -> Command:
    """Add all options but `--verbose`; the command gets one argument each."""
    for option in reversed((*_address(), *_sizes(), *_model(), *_limits())):
        command = option(command)
    return command


def api_keys(
    given: Sequence[str], file: Path | None, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the keys of the options, of a file and of the environment, each once.

    A file has a key a line; empty lines and those that begin with # count for nothing. The
    environment separates keys by spaces. Raises InputError for a file that cannot be read, or that
    has no key in it: nobody who names one wants a server that is open to all.
    """
    keys = [*given, *environ.get(KEY_VARIABLE, "").split()]
    if file is not None:
        keys += _read_keys(file)
    if any(not key.strip() for key in given):
        raise InputError("--api-key: found an empty one, expected a key")
    return tuple(dict.fromkeys(keys))


def _read_keys(file: Path) -> list[str]:
    try:
        text = read_file(file, _KEYS_LIMIT, InputError).decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{file}: found no such file, expected API keys in it") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: found no UTF-8 at byte {error.start}, expected keys") from error
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InputError(f"{file}: found no API key, expected one a line")
    return keys


def _option(group: str, *flags: str, **settings: Any) -> _Decorator:
    return click.option(*flags, cls=GroupedOption, group=group, **settings)


def _address() -> tuple[_Decorator, ...]:
    return (
        _option(
            _ADDRESS,
            "--host",
            default="127.0.0.1",
            show_default=True,
            help="Address to listen on; the default cannot be reached from other machines, 0.0.0.0 "
            "from all.",
        ),
        _option(
            _ADDRESS,
            "--port",
            type=click.IntRange(0, 65535),
            default=8000,
            show_default=True,
            help="0 takes a free one.",
        ),
        _option(
            _ADDRESS,
            "--api-key",
            "keys",
            multiple=True,
            metavar="KEY",
            help="Refuse who does not send this key; can be given several times. Others on this "
            f"machine see it in the list of processes: {KEY_VARIABLE} in the environment, with "
            "spaces between keys, and --api-key-file keep it to yourself.",
        ),
        _option(
            _ADDRESS,
            "--api-key-file",
            "key_file",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="File of keys, one a line.",
        ),
        _option(
            _ADDRESS,
            "--cors-origin",
            "cors_origins",
            multiple=True,
            metavar="ORIGIN",
            help="Let web pages of this origin call, such as https://chat.example; * lets all.",
        ),
        _option(
            _ADDRESS,
            "--allowed-host",
            "allowed_hosts",
            multiple=True,
            metavar="NAME",
            help="Without keys: answer requests to this name as well, such as a proxy's.",
        ),
        _option(
            _ADDRESS,
            "--model-name",
            metavar="NAME",
            help="What clients call the model.  [default: the name of the package's folder]",
        ),
    )


def _sizes() -> tuple[_Decorator, ...]:
    return (
        _option(
            _SIZES,
            "--slots",
            type=click.IntRange(1, 1024),
            help="Answers that run at once.  [default: 8, or as many as fit]",
        ),
        _option(
            _SIZES,
            "--capacity",
            type=click.IntRange(min=1),
            metavar="TOKENS",
            help="Of one conversation, prompt and answer together.  [default: 8192, or what the "
            "model takes, or what fits]",
        ),
        _option(
            _SIZES,
            "--prefix-cache",
            type=click.IntRange(min=0),
            metavar="BYTES",
            help="For beginnings of conversations, kept to be gone on with.  [default: as much as "
            "the slots take, if it fits]",
        ),
        _option(
            _SIZES,
            "--share-prefixes",
            is_flag=True,
            help="With several keys: begin with what was saved for another key. Its owner's "
            "prompts can then be guessed from how much of one's own was cached.",
        ),
        _option(
            _SIZES,
            "--replicas",
            type=click.IntRange(1, 64),
            default=1,
            show_default=True,
            help="Processes that each answer as one server would, with slots and caches of their "
            "own; requests of one conversation go to the same. Needs the extra ray.",
        ),
        _option(
            _SIZES,
            "--chunk",
            type=click.IntRange(1, 4096),
            metavar="TOKENS",
            default=128,
            show_default=True,
            help="Of a prompt, read between two tokens of the answers that run: less makes those "
            "smoother, more reads prompts faster.",
        ),
    )


def _model() -> tuple[_Decorator, ...]:
    return (
        _option(
            _MODEL,
            "--kernels",
            type=click.Choice(get_args(Kernels)),
            default="auto",
            show_default=True,
            help="What runs the ai.gptoss ops; auto takes native where every op has a kernel.",
        ),
        _option(
            _MODEL,
            "--activations",
            type=click.Choice(get_args(Activations)),
            default="exact",
            show_default=True,
            help="What native kernels multiply the weights by: float32, or less for speed.",
        ),
        _option(
            _MODEL,
            "--provider",
            type=click.Choice(get_args(Provider)),
            default="cpu",
            show_default=True,
        ),
        _option(
            _MODEL,
            "--threads",
            type=click.IntRange(min=1),
            help="Threads; without it one a core.",
        ),
    )


def _limits() -> tuple[_Decorator, ...]:
    return (
        _option(
            _LIMITS,
            "--max-queue",
            type=click.IntRange(min=0),
            default=64,
            show_default=True,
            help="Answers that may wait for a slot; beyond it clients get 429 and when to come "
            "again.",
        ),
        _option(
            _LIMITS,
            "--max-requests",
            type=click.IntRange(min=1),
            default=512,
            show_default=True,
            help="Requests in work at a time, of every kind; beyond it clients get 503.",
        ),
        _option(
            _LIMITS,
            "--max-connections",
            type=click.IntRange(min=1),
            default=None,
            show_default="1000, or as many as the limit of open files allows",
            help="Open at a time; one more takes the place of the one that has been idle longest, "
            "or gets 503.",
        ),
        _option(
            _LIMITS,
            "--max-body",
            type=click.IntRange(min=1),
            metavar="BYTES",
            default=8_000_000,
            show_default=True,
            help="Of one request.",
        ),
        _option(
            _LIMITS,
            "--request-seconds",
            type=click.FloatRange(min=0, min_open=True),
            default=3600,
            show_default=True,
            help="In which an answer has to be complete, waiting included.",
        ),
        _option(
            _LIMITS,
            "--drain-seconds",
            type=click.FloatRange(min=0, min_open=True),
            default=60,
            show_default=True,
            help="For answers to end in, after Ctrl-C or SIGTERM.",
        ),
        _option(
            _LIMITS,
            "--log-json",
            is_flag=True,
            help="Write one JSON line a request to stderr.",
        ),
    )
