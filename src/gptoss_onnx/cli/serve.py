"""`gptoss-onnx serve`: an OpenAI-compatible server on a package, and a chat page at its root."""

import logging
import os
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gptoss_onnx.amounts import count_of
from gptoss_onnx.choices import Activations, Kernels, Provider
from gptoss_onnx.cli.console import extra, is_verbose, say, verbose_option
from gptoss_onnx.cli.grouped import GroupedCommand
from gptoss_onnx.cli.serve_greeting import greeting
from gptoss_onnx.cli.serve_options import api_keys, serve_options
from gptoss_onnx.cli.serve_replicas import serve_replicas
from gptoss_onnx.cli.serve_run import ServeRun

if TYPE_CHECKING:
    from gptoss_onnx.memory import MemoryRoom
    from gptoss_onnx.runtime import Session, Tokenizer
    from gptoss_onnx.serving.settings import ServerSettings

INTERRUPTED = 130  # as of a program that Ctrl-C kills
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
        from gptoss_onnx.runtime import Tokenizer, open_package
    with extra("serve"):
        # what the extra brings is missing here or nowhere
        import gptoss_onnx.serving.app
        import gptoss_onnx.serving.run  # noqa: F401
    from gptoss_onnx.memory import memory_room
    from gptoss_onnx.serving.malloc import bound_malloc, trim_malloc
    from gptoss_onnx.serving.open_files import allow_connections
    from gptoss_onnx.serving.sizes import AskedSizes

    settings = replace(settings, max_connections=allow_connections(options["max_connections"]))
    bound_malloc(os.environ)
    trim_malloc()

    run = ServeRun(
        package,
        settings,
        host,
        port,
        AskedSizes(slots, capacity, prefix_cache),
        chunk,
        max_queue,
        kernels,
        activations,
        provider,
        threads,
    )
    # mistakes that show without the graph are reported before it is loaded
    tokenizer = Tokenizer.open(open_package(package).folder)
    room = memory_room() if provider == "cpu" else None
    if replicas > 1:
        serve_replicas(run, replicas, room)
    elif not _serve_alone(run, tokenizer, room):
        sys.exit(INTERRUPTED)


def _serve_alone(run: ServeRun, tokenizer: "Tokenizer", room: "MemoryRoom | None") -> bool:
    """Serve in this process until told to stop; returns whether it ended in peace."""
    from gptoss_onnx.runtime.engine import Engine
    from gptoss_onnx.serving.app import create_app
    from gptoss_onnx.serving.metrics import ServerMetrics
    from gptoss_onnx.serving.run import open_listener, run_server, url_of

    if run.settings.access_log:
        _log_to_stderr()
    metrics = ServerMetrics()
    with closing(open_listener(run.host, run.port)) as listener, _opened(run) as session:
        sizes = run.sizes(session, room)
        with Engine(
            session,
            slots=sizes.slots,
            capacity=sizes.capacity,
            chunk=run.chunk,
            max_queue=run.max_queue,
            prefix_bytes=sizes.prefix_bytes,
            observe=metrics,
        ) as engine:
            url = url_of(listener)
            return run_server(
                create_app(engine, tokenizer, run.settings, metrics),
                listener,
                ready=lambda: say(greeting(url, run, session, sizes, room)),
                stopping=_tell_stopping,
            )


def _opened(run: ServeRun) -> "Session":
    """Load the graph, which can take a while."""
    if is_verbose() or sys.stderr.isatty():
        click.echo(f"loading {run.package} ...", err=True)
    return run.open()


def _settings(package: Path, log_json: bool, options: dict[str, Any]) -> "ServerSettings":
    """Return the settings of what the options say; raises InputError for wrong ones."""
    from gptoss_onnx.serving.settings import ServerSettings

    name = options["model_name"]
    return ServerSettings(
        model=package.absolute().name if name is None else name,
        api_keys=api_keys(options["keys"], options["key_file"], os.environ),
        cors_origins=options["cors_origins"],
        allowed_hosts=options["allowed_hosts"],
        shares_prefixes=options["share_prefixes"],
        access_log=log_json,
        max_body_bytes=options["max_body"],
        max_requests=options["max_requests"],
        request_seconds=options["request_seconds"],
        drain_seconds=options["drain_seconds"],
    )


def _log_to_stderr() -> None:
    """Write the access log's lines as they are: they are JSON already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(ACCESS_LOG)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _tell_stopping(requests: int) -> None:
    waits = f"; {count_of(requests, 'request')} may end first" if requests else ""
    click.echo(f"stopping{waits}", err=True)
