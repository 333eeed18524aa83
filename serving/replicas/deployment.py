"""The deployments of Ray Serve: replicas, which each have a session and an engine, and the front.

`application` is what `serve.yaml` names. Which replica a request goes to is decided by Ray's
ConsistentHashRouter on the front's key. That one replica ends moves its conversations alone.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import RayServeException
from starlette.types import ASGIApp, Message

from gptoss_onnx.runtime import Session, Tokenizer
from gptoss_onnx.runtime.engine import Engine
from gptoss_onnx.serving.app import create_app
from gptoss_onnx.serving.errors import unavailable
from gptoss_onnx.serving.metrics import ServerMetrics
from gptoss_onnx.serving.replicas.front import Front, ReplicaLostError
from gptoss_onnx.serving.replicas.options import ReplicaOptions, options_of
from gptoss_onnx.serving.replicas.relay import relayed
from gptoss_onnx.serving.settings import ServerSettings

NAME = "gptoss-onnx"  # of the application
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_HEALTH_SECONDS = 2.0  # between looks whether a replica lives
_UNHEALTHY_SECONDS = 30.0  # without an answer: a long step holds no lock that it waits for
_FRONT_REQUESTS = 10_000  # the replicas have limits of their own


def application(arguments: Mapping[str, Any]) -> serve.Application:
    """Return the application of a `serve.yaml` whose `args` are these; see `ReplicaOptions`.

    Raises InputError for arguments that there are not, and wrong values.
    """
    return deploy(options_of(arguments))


def deploy(options: ReplicaOptions) -> serve.Application:
    """Return the application, to be given to `serve.run`."""
    settings = options.settings
    replicas = serve.deployment(
        name="Replica",
        num_replicas=options.replicas,
        max_ongoing_requests=settings.max_requests,
        ray_actor_options={"num_cpus": 1},
        health_check_period_s=_HEALTH_SECONDS,
        health_check_timeout_s=_UNHEALTHY_SECONDS,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        request_router_config=RequestRouterConfig(request_router_class=_ROUTER),
    )(Replica)
    front = serve.deployment(
        name="Front",
        num_replicas=1,
        max_ongoing_requests=_FRONT_REQUESTS,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )(serve.ingress()(FrontDeployment))
    return front.bind(replicas.bind(options), settings)


class Replica:
    """One server without a port: a session, an engine and the application over them."""

    def __init__(self, options: ReplicaOptions) -> None:
        metrics = ServerMetrics()
        with ExitStack() as stack:
            session = stack.enter_context(
                Session.open(
                    options.package,
                    options.kernels,
                    options.activations,
                    threads=options.threads,
                )
            )
            engine = stack.enter_context(
                Engine(
                    session,
                    slots=options.slots,
                    capacity=options.capacity,
                    chunk=options.chunk,
                    max_queue=options.max_queue,
                    prefix_bytes=options.prefix_bytes,
                    observe=metrics,
                )
            )
            tokenizer = Tokenizer.open(session.package.folder)
            self._app = create_app(engine, tokenizer, options.settings, metrics)
            self._engine, self._stack = engine, stack.pop_all()

    async def answer(self, scope: Mapping[str, Any], body: bytes) -> AsyncGenerator[Message, None]:
        """Yield the messages of an answer; Ray cancels it when the client leaves."""
        async for message in relayed(self._app, scope, body):
            yield message

    def check_health(self) -> None:
        """Raise where the engine cannot be asked; Ray then starts another replica."""
        self._engine.snapshot()

    def __del__(self) -> None:
        if hasattr(self, "_stack"):
            self._stack.close()


class FrontDeployment:
    """The front, with Ray's handle of the replicas."""

    def __init__(self, replicas: Any, settings: ServerSettings) -> None:
        self._replicas = replicas
        self._front = Front(self._ask, settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._front

    async def drain(self) -> bool:
        """Let the answers in work end, see `Front.drain`."""
        return await self._front.drain()

    async def _ask(
        self, key: str, scope: Mapping[str, Any], body: bytes
    ) -> AsyncGenerator[Message, None]:
        handle = self._replicas.options(stream=True, method_name="answer", session_id=key)
        answer = handle.remote(scope, body)
        try:
            async for message in answer:
                yield message
        except RayServeException as error:
            raise unavailable("no replica takes requests; send this one again later") from error
        except RayError as error:
            raise ReplicaLostError(
                "the replica that worked on this request has ended; send the request again"
            ) from error
        finally:
            answer.cancel()
