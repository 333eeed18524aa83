"""The command group. An error becomes one line on stderr and an exit code.

Exit codes: 0 done; 1 the check ran and failed; 2 wrong input or environment; 130 interrupted; 141
the reader of stdout went away; 143 terminated; the last three as for a program that the signal
kills.
"""

import atexit
import errno
import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click

from gptoss_onnx.cli.bench import bench
from gptoss_onnx.cli.card import card
from gptoss_onnx.cli.chat import chat
from gptoss_onnx.cli.console import Invocation, one_line, verbose_option
from gptoss_onnx.cli.export import export
from gptoss_onnx.cli.generate import generate
from gptoss_onnx.cli.inspect import inspect
from gptoss_onnx.cli.make_checkpoint import make_checkpoint
from gptoss_onnx.cli.plan import plan
from gptoss_onnx.cli.push import push
from gptoss_onnx.cli.serve import serve
from gptoss_onnx.cli.validate import validate
from gptoss_onnx.errors import GptOssError

WRONG = 2
INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141
AGAIN_SECONDS = 3


def exit_on_sigterm() -> None:
    """Let SIGTERM end this program by an exit, so that what cleans up does; see `terminate`."""
    signal.signal(signal.SIGTERM, terminate)
    # Python takes its handlers away in its last moments: the alarm would kill it then.
    atexit.register(_stop_alarm)


def terminate(number: int, _: object) -> None:
    """Exit as SIGTERM asks, so that what cleans up does.

    It comes again until the exit has begun: Python ignores what is raised in a destructor or in a
    callback, where the signal may find it. What cleans up is not disturbed, however long it takes.
    """
    signal.signal(signal.SIGALRM, terminate)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    if number != signal.SIGALRM or not _is_ending():
        sys.exit(TERMINATED)


def _stop_alarm() -> None:
    if signal.getsignal(signal.SIGALRM) is terminate:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_ending() -> bool:
    """Say whether what the signal has interrupted cleans up after `terminate`."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, SystemExit) and error.code == TERMINATED:
            return True
        error = error.__context__
    return False


class Application(click.Group):
    """A group whose errors are one line each; with `--verbose` their traceback comes first."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line and exit; see `click.Command.main`."""
        if standalone_mode and threading.current_thread() is threading.main_thread():
            exit_on_sigterm()
            # Python's last search for garbage takes 1.5 s where PyTorch is loaded, and frees what
            # ends anyway.
            atexit.register(gc.freeze)
        with Invocation() as invocation:
            run = partial(
                super().main,
                args,
                prog_name,
                complete_var,
                standalone_mode=False,
                obj=invocation,
                **extra,
            )
            try:
                code = _exit_code(run, invocation) if standalone_mode else run()
            finally:
                _stop_alarm()  # the exit has come as far as this
        return sys.exit(code) if standalone_mode else code

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. If the reader of stdout goes away, click alone would exit with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ClosedPipeError from error


class _ClosedPipeError(Exception):
    """Nobody reads stdout any more."""


COMPLETION = """\b
Completion of commands and options with the Tab key:
  bash  eval "$(_GPTOSS_ONNX_COMPLETE=bash_source gptoss-onnx)"   in ~/.bashrc
  zsh   eval "$(_GPTOSS_ONNX_COMPLETE=zsh_source gptoss-onnx)"    in ~/.zshrc
  fish  _GPTOSS_ONNX_COMPLETE=fish_source gptoss-onnx | source    in ~/.config/fish/config.fish
"""


@click.group(
    cls=Application,
    invoke_without_command=True,
    epilog=COMPLETION,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="gptoss-onnx")
@verbose_option
@click.pass_context
def main(context: click.Context) -> None:
    """Export gpt-oss checkpoints to ONNX packages, prove them against PyTorch, and run them with
    ONNX Runtime.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    export,
    inspect,
    generate,
    chat,
    serve,
    validate,
    bench,
    plan,
    card,
    push,
    make_checkpoint,
):
    main.add_command(command)


def _exit_code(run: Callable[[], Any], invocation: Invocation) -> int:
    """Run a command and return its exit code; if it fails, print one line on stderr."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode shows what it can
        code = run()
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk or a closed pipe can still be reported
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return _tell("interrupted", INTERRUPTED, invocation)
    except click.ClickException as error:
        return _tell(f"error: {_usage(error)}", WRONG, invocation)
    except (_ClosedPipeError, BrokenPipeError):
        # for Python's own flush at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except GptOssError as error:
        return _tell(f"error: {error}", WRONG, invocation)
    except MemoryError as error:
        return _tell(
            f"error: out of memory: {str(error) or 'free some, or ask for less'}", WRONG, invocation
        )
    except OSError as error:
        return _tell(f"error: {_system(error)}", WRONG, invocation)
    except Exception as error:  # noqa: BLE001 - a bug; Python's own exit code, 1, would say that a check failed
        hint = "" if invocation.verbose else "; --verbose shows where"
        text = f"error: unexpected {type(error).__name__}: {error} (a bug: please report it{hint})"
        return _tell(text, WRONG, invocation)


def _tell(text: str, code: int, invocation: Invocation) -> int:
    """Print the text on one line, with --verbose below its traceback."""
    if invocation.verbose:
        traceback.print_exc()
    print(one_line(text), file=sys.stderr)  # noqa: T201 - the terminal is what this is for
    return code


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return message if context is None else f"{message} (see {context.command_path} --help)"


def _system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    hints = {
        errno.ENOSPC: "; free some space or choose another disk",
        errno.EDQUOT: "; free some space or choose another disk",
        errno.EACCES: "; check its permissions, or choose another place",
        errno.EPERM: "; check its permissions, or choose another place",
        errno.EROFS: "; choose another place",
    }
    return f"{where}{error.strerror or error}{hints.get(error.errno or 0, '')}"
