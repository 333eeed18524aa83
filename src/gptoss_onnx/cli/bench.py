"""`gptoss-onnx bench`: how fast a package is on this machine, and how far from what the machine can
do.
"""

import sys
from pathlib import Path

import click

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.cli.console import (
    extra,
    is_verbose,
    kernel_options,
    print_json,
    say,
    verbose_option,
)


@click.command(short_help="Time a package beside what the machine can do.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--prefill",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Tokens of one prefill.",
)
@click.option(
    "--decode",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Tokens decoded one by one.",
)
@click.option(
    "--context",
    type=click.IntRange(min=0),
    default=0,
    help="Tokens in the cache before either; default 0.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How often prefill runs.",
)
@kernel_options
@click.option("--threads", type=click.IntRange(min=1), help="Threads; without it one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")
@verbose_option
def bench(
    package: Path,
    prefill: int,
    decode: int,
    context: int,
    rounds: int,
    kernels: Kernels,
    activations: Activations,
    threads: int | None,
    as_json: bool,
) -> None:
    """Time PACKAGE with random tokens, and measure in the same run what this machine can do.

    The tokens are random because a token that repeats would find its experts in the processor's
    caches. Decode has a memory floor: the time that it takes to read its weights and KV cache and
    do nothing else.
    """
    with extra("cpu"):
        from gptoss_onnx.bench.measure import measure_speed
        from gptoss_onnx.bench.stopwatch import Plan
        from gptoss_onnx.runtime import open_package

    speed = measure_speed(
        open_package(package),
        Plan(prefill, decode, context, rounds),
        kernels=kernels,
        activations=activations,
        threads=threads,
        tell=_tell,
    )
    if as_json:
        print_json(speed.to_json())
    else:
        say(speed.summary())


def _tell(what: str) -> None:
    if is_verbose() or sys.stderr.isatty():
        click.echo(f"{what} ...", err=True)
