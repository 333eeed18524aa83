"""Replicas on this machine alone: a Ray of their own, which ends with them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve

from gptoss_onnx.serving.replicas.deployment import NAME, deploy
from gptoss_onnx.serving.replicas.options import ReplicaOptions

# For what replicas hand to the front: messages of some kilobytes.
_STORE_BYTES = 100_000_000


@contextmanager
def running_replicas(options: ReplicaOptions, host: str, port: int) -> Iterator[None]:
    """Start Ray and the replicas, and serve on an address inside the block. At its end answers in
    work may end, for `settings.drain_seconds` at most.

    Raises RuntimeError of Ray's where a replica cannot begin.
    """
    ray.init(
        address="local",
        # A replica asks for one; how many threads it has is an option of its own.
        num_cpus=max(os.cpu_count() or 1, options.replicas),
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
    )
    try:
        serve.start(http_options={"host": host, "port": port})
        serve.run(deploy(options), name=NAME, route_prefix="/")
        yield
        serve.shutdown()
    finally:
        ray.shutdown()
