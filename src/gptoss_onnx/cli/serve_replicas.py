"""`gptoss-onnx serve --replicas`: several servers of one package behind one address."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from gptoss_onnx.cli.console import extra, say
from gptoss_onnx.cli.serve_greeting import greeting
from gptoss_onnx.cli.serve_run import ServeRun
from gptoss_onnx.errors import InputError
from gptoss_onnx.memory import MemoryRoom
from gptoss_onnx.processor import cores

if TYPE_CHECKING:
    from gptoss_onnx.serving.replicas.options import ReplicaOptions
    from gptoss_onnx.serving.sizes import Sizes

_NO_REPORTS = "RAY_USAGE_STATS_ENABLED"  # Ray would tell its makers that it runs


def serve_replicas(run: ServeRun, replicas: int, room: MemoryRoom | None) -> None:
    """Serve until SIGINT or SIGTERM, and then until the answers in work have ended.

    Each replica gets its part of the cores, unless threads are asked for, and of the memory.

    Raises:
        InputError: several replicas on one machine cannot do what is asked for, the sizes do not
            fit, or the address is not to be had.
        RuntimeUnavailable: Ray is not installed, or a replica cannot begin.
    """
    _check(run, replicas)
    os.environ.setdefault(_NO_REPORTS, "0")
    with extra("ray"):
        from gptoss_onnx.serving.replicas.run import running_replicas
    from gptoss_onnx.serving.run import open_listener, url_of

    run = replace(run, threads=run.threads or max(1, cores() // replicas))
    room = _share_of(room, replicas)
    with closing(open_listener(run.host, run.port)) as listener:
        address, url = listener.getsockname()[:2], url_of(listener)
    with run.open() as session:
        sizes = run.sizes(session, room)
    options = _options(run, replicas, sizes)
    # in this order: Ray has a handler of its own, which ends the program at once
    with running_replicas(options, *address), _told_to_stop() as told:
        say(greeting(url, run, session, sizes, room, replicas))
        told.wait()
        click.echo("stopping", err=True)


def _check(run: ServeRun, replicas: int) -> None:
    """Raise InputError for what several replicas on one machine cannot do."""
    if run.provider != "cpu":
        raise InputError(
            f"--replicas {replicas}: found with --provider {run.provider}, expected cpu: one "
            "replica fills a GPU"
        )
    if run.settings.access_log:
        raise InputError(
            f"--replicas {replicas}: found with --log-json, which one server alone writes: leave "
            "it out; Ray keeps the logs of replicas"
        )


def _share_of(room: MemoryRoom | None, replicas: int) -> MemoryRoom | None:
    """Return the memory that one of the replicas may take."""
    if room is None:
        return None
    return MemoryRoom(room.size // replicas, f"each of {replicas} replicas on {room.owner}")


def _options(run: ServeRun, replicas: int, sizes: "Sizes") -> "ReplicaOptions":
    from gptoss_onnx.serving.replicas.options import ReplicaOptions

    return ReplicaOptions(
        str(run.package.resolve()),
        run.settings,
        replicas,
        slots=sizes.slots,
        capacity=sizes.capacity,
        chunk=run.chunk,
        max_queue=run.max_queue,
        prefix_bytes=sizes.prefix_bytes,
        kernels=run.kernels,
        activations=run.activations,
        threads=run.threads,
    )


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Yield what SIGINT and SIGTERM set inside the block."""
    told = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: told.set()) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
