"""`gptoss-onnx serve`: an OpenAI-compatible server on a package, and a chat page at its root."""

import json
import logging
import os
import shlex
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.cli.console import extra, say, verbose_option
from gptoss_onnx.cli.grouped import GroupedCommand
from gptoss_onnx.cli.serve_options import KEY_VARIABLE, api_keys, serve_options
from gptoss_onnx.cli.serve_replicas import (
    check_replicas,
    serve_replicas,
    share_of,
    share_of_threads,
)

if TYPE_CHECKING:
    from gptoss_onnx.memory import MemoryRoom
    from gptoss_onnx.runtime import Session
    from gptoss_onnx.serving.settings import ServerSettings
    from gptoss_onnx.serving.sizes import AskedSizes, Sizes

INTERRUPTED = 130  # as of a program that Ctrl-C kills
CALL_BYTES = 200_000_000  # of memory that calls of the graph and requests take for a while
ACCESS_LOG = "gptoss_onnx.serving.access"


@click.command(cls=GroupedCommand, short_help="Serve a package over HTTP, as OpenAI's API does.")
@click.argument("package", type=click.Path(path_type=Path))
@serve_options
@verbose_option
def serve(
    package: Path,
    host: str,
    port: int,
    slots: int | None,
    capacity: int | None,
    prefix_cache: int | None,
    replicas: int,
    chunk: int,
    max_queue: int,
    kernels: Kernels,
    activations: Activations,
    provider: Provider,
    threads: int | None,
    log_json: bool,
    **options: Any,
) -> None:
    """Serve PACKAGE to the clients of OpenAI's API, and to people with a browser.

    Nothing but PACKAGE is needed: the sizes are chosen so that they fit into this machine's memory.
    The server prints its address and a command to try it. Ctrl-C and SIGTERM let the answers in
    work end first; a second Ctrl-C cuts them off.
    """
    settings = _settings(package, log_json, options)
    with extra("cpu"):
        from gptoss_onnx.runtime import Session, Tokenizer, open_package
        from gptoss_onnx.runtime.engine import Engine
    with extra("serve"):
        from gptoss_onnx.serving.app import create_app
        from gptoss_onnx.serving.metrics import ServerMetrics
        from gptoss_onnx.serving.replicas.options import ReplicaOptions
        from gptoss_onnx.serving.run import open_listener, run_server, url_of
    from gptoss_onnx.memory import memory_room
    from gptoss_onnx.serving.sizes import AskedSizes

    # mistakes that show without the graph are reported before it is loaded
    tokenizer = Tokenizer.open(open_package(package).folder)
    room = memory_room() if provider == "cpu" else None
    if replicas > 1:
        check_replicas(replicas, provider, log_json)
        threads, room = share_of_threads(threads, replicas), share_of(room, replicas)
        with Session.open(package, kernels, activations, provider, threads) as session:
            sizes = _sizes(session, AskedSizes(slots, capacity, prefix_cache), chunk, room)
        serve_replicas(
            ReplicaOptions(
                str(package.resolve()),
                settings,
                replicas,
                slots=sizes.slots,
                capacity=sizes.capacity,
                chunk=chunk,
                max_queue=max_queue,
                prefix_bytes=sizes.prefix_bytes,
                kernels=kernels,
                activations=activations,
                threads=threads,
            ),
            host,
            port,
            lambda url: _greeting(url, host, max_queue, settings, session, sizes, room),
        )
        return
    metrics = ServerMetrics()
    with (
        closing(open_listener(host, port)) as listener,
        Session.open(package, kernels, activations, provider, threads) as session,
    ):
        sizes = _sizes(session, AskedSizes(slots, capacity, prefix_cache), chunk, room)
        with Engine(
            session,
            slots=sizes.slots,
            capacity=sizes.capacity,
            chunk=chunk,
            max_queue=max_queue,
            prefix_bytes=sizes.prefix_bytes,
            observe=metrics,
        ) as engine:
            url = url_of(listener)
            in_peace = run_server(
                create_app(engine, tokenizer, settings, metrics),
                listener,
                ready=lambda: say(_greeting(url, host, max_queue, settings, session, sizes, room)),
                stopping=_tell_stopping,
            )
    if not in_peace:
        sys.exit(INTERRUPTED)


def _settings(package: Path, log_json: bool, options: dict[str, Any]) -> "ServerSettings":
    """Return the settings of what the options say; raises InputError for wrong ones."""
    from gptoss_onnx.serving.settings import ServerSettings

    if log_json:
        _log_to_stderr()
    name = options["model_name"]
    return ServerSettings(
        model=package.absolute().name if name is None else name,
        api_keys=api_keys(options["keys"], options["key_file"], os.environ),
        cors_origins=options["cors_origins"],
        allowed_hosts=options["allowed_hosts"],
        access_log=log_json,
        max_body_bytes=options["max_body"],
        max_requests=options["max_requests"],
        request_seconds=options["request_seconds"],
        drain_seconds=options["drain_seconds"],
    )


def _sizes(
    session: "Session", asked: "AskedSizes", chunk: int, room: "MemoryRoom | None"
) -> "Sizes":
    """Return sizes that fit into `room`, of which the session has taken its part already."""
    from gptoss_onnx.memory import own_bytes
    from gptoss_onnx.runtime.engine import Engine
    from gptoss_onnx.serving.sizes import choose_sizes

    return choose_sizes(
        asked,
        session.manifest.longest,
        weights=sum(file.size for file in session.manifest.weights.files),
        program=(own_bytes() or 0) + CALL_BYTES,
        cache_bytes=lambda slots, capacity: Engine.plan_bytes(session, slots, capacity, chunk, 0),
        room=room,
    )


def _log_to_stderr() -> None:
    """Write the access log's lines as they are: they are JSON already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(ACCESS_LOG)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _greeting(
    url: str,
    host: str,
    max_queue: int,
    settings: "ServerSettings",
    session: "Session",
    sizes: "Sizes",
    room: "MemoryRoom | None",
) -> str:
    """Return what the server says of itself once it is ready."""
    left = "on the GPU, not compared with what it has" if room is None else room.words
    rows = {
        "page": url,
        "API": f"{url}/v1, model {settings.model}",
        "answers": f"{sizes.slots} at once, each with its prompt up to {sizes.capacity} tokens; "
        f"{max_queue} more may wait",
        "memory": f"up to {file_size(sizes.total)} ({sizes.parts}); {left}",
        "kernels": f"{session.kernels}, {session.activations}, {session.provider}",
        "access": _access(host, settings),
        "try": _curl(url, settings),
    }
    lines = [f"{name:<9}{value}" for name, value in rows.items()]
    return "\n".join([*lines, "ready: Ctrl-C stops it once all answers have ended"])


def _access(host: str, settings: "ServerSettings") -> str:
    from gptoss_onnx.serving.run import is_loopback

    if settings.api_keys:
        return f"with one of {count_of(len(settings.api_keys), 'API key')}"
    if is_loopback(host):
        return "without a key, from this machine alone"
    return f"without a key, from all machines that reach {host}; --api-key keeps others out"


def _curl(url: str, settings: "ServerSettings") -> str:
    message = {"role": "user", "content": "Why are there tides?"}
    body = json.dumps({"messages": [message], "stream": True})
    # The key itself stays out of terminals and of their history.
    key = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if settings.api_keys else ""
    return (
        f"curl -N {shlex.quote(url + '/v1/chat/completions')} "
        f"-H 'Content-Type: application/json'{key} -d {shlex.quote(body)}"
    )


def _tell_stopping(requests: int) -> None:
    waits = f"; {count_of(requests, 'request')} may end first" if requests else ""
    click.echo(f"stopping{waits}", err=True)
