"""What every command shares: the --verbose flag, logging to stderr, JSON on stdout, and hints for
missing extras.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar, get_args

import click

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.collection import no_collection
from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.extras import install_command
from gptoss_onnx.json_text import dump_json, printable

OURS = "gptoss_onnx"
Command = TypeVar("Command", bound=Callable[..., Any])


class Invocation:
    """One run of the command line: whether it is verbose, and where log records and warnings go.

    Attributes:
        verbose: whether `--verbose` was given.
        before_a_line: called before a record or warning is printed, to make room for it; None for
            nothing to do.

    A context manager. Records go to stderr: of this project from WARNING on, of others from ERROR
    on (their warnings are seldom something a user can act on); verbose shows INFO and WARNING.
    """

    def __init__(self) -> None:
        self.verbose = False
        self.before_a_line: Callable[[], None] | None = None
        self._handler = logging.StreamHandler(sys.stderr)
        self._handler.setFormatter(_OneLine())
        self._handler.addFilter(self._shows)
        self._warnings = warnings.catch_warnings()

    def be_verbose(self) -> None:
        """Show more from now on."""
        self.verbose = True
        logging.getLogger(OURS).setLevel(logging.INFO)

    def __enter__(self) -> Self:
        self._level = logging.getLogger(OURS).level
        logging.getLogger().addHandler(self._handler)
        self._warnings.__enter__()
        warnings.showwarning = self._show_warning
        return self

    def __exit__(self, *error: Any) -> None:
        self._warnings.__exit__(*error)
        logging.getLogger().removeHandler(self._handler)
        logging.getLogger(OURS).setLevel(self._level)

    def _shows(self, record: logging.LogRecord) -> bool:
        ours = record.name.partition(".")[0] == OURS
        quiet = logging.WARNING if ours else logging.ERROR
        shown = record.levelno >= (quiet - 10 if self.verbose else quiet)
        if shown and self.before_a_line is not None:
            self.before_a_line()
        return shown

    def _show_warning(
        self, message: Warning | str, category: type[Warning], *where: Any, **more: Any
    ) -> None:
        if self.verbose:
            if self.before_a_line is not None:
                self.before_a_line()
            print(f"{category.__name__}: {message}", file=sys.stderr)  # noqa: T201 - a terminal is what this is for


class _OneLine(logging.Formatter):
    """The message alone, on one line; below it the traceback, where a record has one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return one_line(record.message)


def verbose_option(command: Command) -> Command:
    """Add `--verbose` to a command."""

    def switch_on(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value and isinstance(context.obj, Invocation):
            context.obj.be_verbose()

    option = click.option(
        "--verbose",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=switch_on,
        help="Log to stderr what is done, and show the traceback of an error.",
    )
    return option(command)


def kernel_options(command: Command) -> Command:
    """Add `--kernels` and `--activations`, what runs the custom ops and what it multiplies."""
    kernels = click.option(
        "--kernels",
        type=click.Choice(get_args(Kernels)),
        default="auto",
        show_default=True,
        help="What runs the ai.gptoss ops; auto takes native where every op has a kernel.",
    )
    activations = click.option(
        "--activations",
        type=click.Choice(get_args(Activations)),
        default="exact",
        show_default=True,
        help="What native kernels multiply the weights by: float32, or less for speed.",
    )
    return kernels(activations(command))


def is_verbose() -> bool:
    """Whether the running command was given `--verbose`."""
    invocation = click.get_current_context().find_object(Invocation)
    return invocation is not None and invocation.verbose


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to stdout; it has no infinities and NaNs, so they become null."""
    click.echo(dump_json(document))


def let_threads_sleep() -> None:
    """Make PyTorch's idle threads sleep; to be called before it is imported.

    By default they spin at every barrier. On small tensors, on a machine that runs anything else,
    that makes the reference many times slower than one thread alone would be.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Say which extra brings what an import inside the block did not find.

    Raises RuntimeUnavailable with the pip command.
    """
    try:
        with no_collection():  # PyTorch alone is hundreds of thousands of objects
            yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == OURS:
            raise
        found = (
            f"{missing} is not installed" if isinstance(error, ModuleNotFoundError) else f"{error}"
        )
        raise RuntimeUnavailable(f"{found}: this command needs {install_command(name)}") from error


def one_line(text: str) -> str:
    """Return the text on one line, as short as white space allows, with other control characters
    escaped.
    """
    return printable(" ".join(text.split()))


def say(text: str, err: bool = False) -> None:
    """Print lines to stdout, or stderr; what strangers wrote in them cannot steer the terminal."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=err)
