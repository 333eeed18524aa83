"""Replicas on this machine alone: a Ray of their own, which ends with them."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.schema import LoggingConfig

from gptoss_onnx.errors import RuntimeUnavailable
from gptoss_onnx.serving.replicas.deployment import NAME, deploy
from gptoss_onnx.serving.replicas.options import ReplicaOptions

# For what replicas hand to the front: messages of some kilobytes.
_STORE_BYTES = 100_000_000
_LAST_SECONDS = 5.0


@contextmanager
def running_replicas(options: ReplicaOptions, host: str, port: int) -> Iterator[None]:
    """Start Ray and the replicas, and serve on an address inside the block. At its end answers in
    work may end, for `settings.drain_seconds` at most.

    Raises RuntimeUnavailable where Ray or a replica cannot begin.
    """
    for name in ("ray", "ray.serve"):  # what matters is raised
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.init(
        address="local",
        # A replica asks for one; how many threads it has is an option of its own.
        num_cpus=max(os.cpu_count() or 1, options.replicas),
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        try:
            quiet = LoggingConfig(log_level="ERROR", enable_access_log=False)
            serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
            serve.run(deploy(options), name=NAME, route_prefix="/")
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise RuntimeUnavailable(f"replicas: they cannot begin: {said:.300}") from error
        yield
        # Ray would cut the connections off at once
        seconds = options.settings.drain_seconds + _LAST_SECONDS
        with suppress(TimeoutError, RayError):
            serve.get_app_handle(NAME).drain.remote().result(timeout_s=seconds)
    finally:
        ray.shutdown()
