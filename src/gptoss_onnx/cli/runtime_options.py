"""`--runtime` and `--client` of `validate`: what runs the package, and what starts it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args

import click

from gptoss_onnx.choices import AskedRuntime, Runtime
from gptoss_onnx.errors import InputError

OTHERS = tuple(name for name in get_args(Runtime) if name != "python")
PARITY_STEM = "parity"
# Of the options that say how a session runs.
DEFAULTS = {"suite": "quick", "kernels": "auto", "activations": "exact"}
Command = TypeVar("Command", bound=Callable[..., Any])


def runtime_options(command: Command) -> Command:
    """Add `--runtime` and `--client` to a command."""
    runtimes = click.option(
        "--runtime",
        "runtimes",
        type=click.Choice(get_args(AskedRuntime)),
        multiple=True,
        default=("python",),
        show_default=True,
        help="What runs the package; several are allowed, all is each that is there. The clients "
        "cpp, node and browser are held to the golden vectors.",
    )
    clients = click.option(
        "--client",
        "clients",
        metavar="[RUNTIME=]COMMAND",
        multiple=True,
        help="Command that starts a client, if not its program on the PATH; for genai, openvino "
        "and onnx.reference, a Python that has it.",
    )
    return runtimes(clients(command))


def commands_of(clients: Sequence[str], runtimes: Sequence[AskedRuntime]) -> dict[str, str]:
    """Return the command of each runtime that `--client` names, by its name.

    Raises:
        InputError: a command stands without a name where it could start several, or none.
    """
    commands: dict[str, str] = {}
    for given in clients:
        name, equals, command = given.partition("=")
        if not equals or name not in OTHERS:
            name, command = _only(runtimes), given
        if name in commands:
            raise InputError(f"--client: found two commands for {name}, expected one")
        commands[name] = command
    return commands


def check_effect(
    given: Mapping[str, str], runtimes: Sequence[AskedRuntime], cpu_levels: Sequence[str]
) -> None:
    """Refuse options that would have no effect, since no session runs; raises InputError."""
    if cpu_levels or not set(runtimes).isdisjoint(("python", "all")):
        return
    for name, value in given.items():
        if value != DEFAULTS[name]:
            raise InputError(
                f"--{name} {value}: found with --runtime {' and '.join(runtimes)}, which chooses "
                "by itself how it runs its cases; leave it out"
            )


def report_stem(runtimes: Sequence[AskedRuntime], cpu_levels: Sequence[str]) -> str:
    """Return the stem of the report's files: the sessions of this process have one of their own."""
    if cpu_levels or not set(runtimes).isdisjoint(("python", "all")):
        return PARITY_STEM
    return f"{PARITY_STEM}-{'-'.join(runtimes)}"


def _only(runtimes: Sequence[AskedRuntime]) -> str:
    """Return the one runtime that a command without a name starts."""
    others = [name for name in runtimes if name in OTHERS]
    if len(others) == 1 and "all" not in runtimes:
        return others[0]
    if not others and "all" not in runtimes:
        raise InputError(
            f"--client: found with --runtime {' and '.join(runtimes)}, expected --runtime "
            f"{' or '.join(OTHERS)}"
        )
    raise InputError(
        "--client: found without the name of a runtime, of which there are several; expected "
        "--client RUNTIME=COMMAND"
    )
