"""`gptoss-onnx bench`: how fast a package is on this machine, and how far from what the machine can
do.
"""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.cli.console import (
    extra,
    file_size,
    is_verbose,
    kernel_options,
    print_json,
    say,
    verbose_option,
)
from gptoss_onnx.errors import InputError, RuntimeUnavailable

if TYPE_CHECKING:
    from gptoss_onnx.bench.machine import Machine
    from gptoss_onnx.bench.speed import Speed
    from gptoss_onnx.bench.stopwatch import Plan
    from gptoss_onnx.runtime import PackageFolder


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

    Random, because routing must vary: a token that repeats finds its experts in the processor's
    caches. Decode has a memory floor, the time that reading its weights and KV cache takes with
    nothing else to do.
    """
    with extra("cpu"):
        from gptoss_onnx.bench.stopwatch import Plan
        from gptoss_onnx.runtime import open_package

    plan = Plan(prefill, decode, context, rounds)
    opened = open_package(package)
    _check_length(opened, plan)
    speed = _measure(opened, plan, kernels, activations, threads)
    if as_json:
        print_json(speed.to_json())
    else:
        say(speed.summary())


def _check_length(package: "PackageFolder", plan: "Plan") -> None:
    longest = package.model_size("max_position_embeddings")
    if plan.longest > longest:
        raise InputError(
            f"--context {plan.context} with --prefill {plan.prefill} and --decode {plan.decode}: "
            f"found {plan.longest} "
            f"tokens, expected at most {longest}, the longest this model takes"
        )


def _measure(
    package: "PackageFolder",
    plan: "Plan",
    kernels: Kernels,
    activations: Activations,
    threads: int | None,
) -> "Speed":
    from gptoss_onnx.bench.footprint import cache_bytes, weight_bytes
    from gptoss_onnx.bench.speed import Settings, Speed
    from gptoss_onnx.bench.stopwatch import Stopwatch, WeightReader
    from gptoss_onnx.runtime import Session
    from gptoss_onnx.runtime.environment import load_onnxruntime
    from gptoss_onnx.runtime.graph_file import GraphFile

    manifest, cores = package.manifest, threads or _cores()
    weights = weight_bytes(GraphFile.read(package.graph))
    onnxruntime = load_onnxruntime()
    cached = cache_bytes(manifest.cache, manifest.kv_dtype, plan.context + plan.decode // 2)
    before = _machine(cores)
    unmeasured = before if isinstance(before, str) else _no_floor(weights.total + cached)
    reader = None if unmeasured else WeightReader(package, cores)
    _tell("open")
    begin = time.perf_counter()
    with Session.open(package.folder, kernels, activations, threads=threads) as session:
        times = Stopwatch(session, reader, _tell).times(plan, time.perf_counter() - begin)
        settings = Settings(
            str(package.folder),
            session.kernels,
            activations,
            manifest.kv_dtype,
            threads,
            onnxruntime.__version__,
        )
    after = before if isinstance(before, str) else _machine(cores)
    return Speed(
        settings,
        times,
        weights,
        cached,
        floor=None if reader is None else reader.floor(times.decode, weights, manifest),
        machine=None if isinstance(before, str) or isinstance(after, str) else (before, after),
        unmeasured=unmeasured,
    )


def _machine(threads: int) -> "Machine | str":
    """Return what the machine can do, or why that cannot be measured: the package runs all the
    same.
    """
    from gptoss_onnx.bench.machine import measure

    _tell("machine")
    try:
        return measure(threads)
    except RuntimeUnavailable as error:
        return str(error)


def _no_floor(count: int) -> str | None:
    """Return why reading `count` bytes a token sets no floor, or None if it does."""
    from gptoss_onnx.bench.machine import last_level_cache

    cache = last_level_cache()
    if cache is None or count > cache:
        return None
    return f"{file_size(count)} a token fit into the processor's cache ({file_size(cache)}), so memory sets no floor"


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell(what: str) -> None:
    if is_verbose() or sys.stderr.isatty():
        click.echo(f"{what} ...", err=True)
