"""Time a package, and measure in the same run what the machine can do."""

import time
from collections.abc import Callable

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.bench import machine
from gptoss_onnx.bench.footprint import cache_bytes, read_inside, weight_bytes
from gptoss_onnx.bench.speed import Settings, Speed
from gptoss_onnx.bench.stopwatch import Plan, Stopwatch, WeightReader
from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.processor import cores
from gptoss_onnx.runtime import Package, Session
from gptoss_onnx.runtime.environment import load_onnxruntime
from gptoss_onnx.runtime.graph_file import GraphFile


def measure_speed(
    package: Package,
    plan: Plan,
    *,
    kernels: Kernels,
    activations: Activations,
    threads: int | None,
    tell: Callable[[str], None],
) -> Speed:
    """Run the plan on a package, between two measurements of the machine.

    Args:
        package: the opened package.
        plan: how many tokens, and how often.
        kernels: as for `Session.open`.
        activations: as for `Session.open`.
        threads: of the session and of the measurements; None is one a core.
        tell: hears what comes next.

    Raises:
        InputError: the plan has more tokens than the model takes.
        PackageError, RuntimeUnavailable: the package cannot be run.
    """
    manifest, used = package.manifest, threads or cores()
    if plan.longest > manifest.longest:
        raise InputError(
            f"--context {plan.context} with --prefill {plan.prefill} and --decode {plan.decode}: "
            f"found {plan.longest} tokens, expected at most {manifest.longest}, the longest this "
            "model takes"
        )
    graph = GraphFile.read(package.graph)
    weights = weight_bytes(graph)
    onnxruntime = load_onnxruntime()
    cached = cache_bytes(manifest.cache, manifest.kv_dtype, plan.context + plan.decode // 2)
    before = _machine(used, tell)
    unmeasured = before if isinstance(before, str) else _no_floor(graph, weights.total + cached)
    reader = None if unmeasured else WeightReader(package, used)
    tell("open")
    begin = time.perf_counter()
    with Session.open(package.folder, kernels, activations, threads=threads) as session:
        times = Stopwatch(session, reader, tell).times(plan, time.perf_counter() - begin)
        settings = Settings(
            str(package.folder),
            session.kernels,
            activations,
            manifest.kv_dtype,
            threads,
            onnxruntime.__version__,
        )
    after = before if isinstance(before, str) else _machine(used, tell)
    return Speed(
        settings,
        times,
        weights,
        cached,
        floor=None if reader is None else reader.floor(times.decode, weights, manifest),
        machine=None if isinstance(before, str) or isinstance(after, str) else (before, after),
        unmeasured=unmeasured,
    )


def _machine(threads: int, tell: Callable[[str], None]) -> machine.Machine | str:
    """Return what the machine can do, or why that cannot be measured; the package runs either
    way.
    """
    tell("machine")
    try:
        return machine.measure(threads)
    except RuntimeUnavailable as error:
        return str(error)


def _no_floor(graph: GraphFile, count: int) -> str | None:
    """Return why reading `count` bytes a token sets no floor, or None if it does."""
    inside = read_inside(graph)
    if inside:
        return (
            f"loops of the graph read {count_of(inside, 'more weight')}, nobody can say how often"
        )
    cache = machine.last_level_cache()
    if cache is None or count > cache:
        return None
    return (
        f"{file_size(count)} a token fit into the processor's cache ({file_size(cache)}), so "
        "memory sets no floor"
    )
