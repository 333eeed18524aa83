"""`gptoss-onnx serve --replicas`: several servers of one package behind one address."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from gptoss_onnx.cli.console import extra, say
from gptoss_onnx.errors import InputError
from gptoss_onnx.memory import MemoryRoom

if TYPE_CHECKING:
    from gptoss_onnx.serving.replicas.options import ReplicaOptions

_NO_REPORTS = "RAY_USAGE_STATS_ENABLED"  # Ray would tell its makers that it runs


def check_replicas(replicas: int, provider: str, log_json: bool) -> None:
    """Raise InputError for what several replicas on one machine cannot do."""
    if provider != "cpu":
        raise InputError(
            f"--replicas {replicas}: found with --provider {provider}, expected cpu: one replica "
            "fills a GPU"
        )
    if log_json:
        raise InputError(
            f"--replicas {replicas}: found with --log-json, which one server alone writes: leave "
            "it out; Ray keeps the logs of replicas"
        )


def share_of(room: MemoryRoom | None, replicas: int) -> MemoryRoom | None:
    """Return the memory that one of the replicas may take."""
    if room is None:
        return None
    return MemoryRoom(room.size // replicas, f"each of {replicas} replicas on {room.owner}")


def share_of_threads(threads: int | None, replicas: int) -> int:
    """Return the threads of one replica: as many as asked for, or its part of the cores."""
    return max(1, (os.cpu_count() or 1) // replicas) if threads is None else threads


def serve_replicas(
    options: "ReplicaOptions", host: str, port: int, greeting: Callable[[str], str]
) -> None:
    """Serve until SIGINT or SIGTERM, and then until the answers in work have ended.

    Args:
        options: of the replicas.
        host: address to listen on.
        port: 0 takes a free one.
        greeting: what to say once requests are taken, for the server's address.

    Raises:
        InputError: the address is not to be had.
        RuntimeUnavailable: Ray is not installed, or a replica cannot begin.
    """
    os.environ.setdefault(_NO_REPORTS, "0")
    with extra("ray"):
        from gptoss_onnx.serving.replicas.run import running_replicas
    from gptoss_onnx.serving.run import open_listener, url_of

    with closing(open_listener(host, port)) as listener:
        address, url = listener.getsockname()[:2], url_of(listener)
    # in this order: Ray has a handler of its own, which ends the program at once
    with running_replicas(options, *address), _told_to_stop() as told:
        say(greeting(url))
        told.wait()
        click.echo("stopping", err=True)


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
