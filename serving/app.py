"""create_app: OpenAI's API over one engine, as an ASGI application."""

import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime.engine import Engine
from gptoss_onnx.runtime.text import Tokenizer
from gptoss_onnx.serving.access import AccessLog
from gptoss_onnx.serving.chat import chat_completions
from gptoss_onnx.serving.completions import completions
from gptoss_onnx.serving.cors import with_cors
from gptoss_onnx.serving.errors import SERVER, ApiError, respond_to
from gptoss_onnx.serving.guard import Guard
from gptoss_onnx.serving.health import health, ready, show_metrics
from gptoss_onnx.serving.metrics import ServerMetrics
from gptoss_onnx.serving.models import get_model, list_models
from gptoss_onnx.serving.openapi import openapi
from gptoss_onnx.serving.page.routes import page_routes
from gptoss_onnx.serving.responses.routes import responses_routes
from gptoss_onnx.serving.settings import ServerSettings
from gptoss_onnx.serving.state import ServerState
from gptoss_onnx.serving.tokenize import detokenize, tokenize

logger = logging.getLogger(__name__)


def create_app(
    engine: Engine,
    tokenizer: Tokenizer,
    settings: ServerSettings,
    metrics: ServerMetrics | None = None,
) -> Starlette:
    """Return the application; `app.state.serving` is what its requests share, see `ServerState`.

    The engine stays its caller's, who closes it after the last request. `metrics` are those that
    the engine was given as its observer; without them, times are not measured. It installs no
    signal handlers, and several may live in a process.
    """
    state = ServerState(engine, tokenizer, settings, metrics or ServerMetrics())
    state.metrics.watch(engine.snapshot, lambda: state.active)
    middleware = [
        Middleware(AccessLog, state=state),
        Middleware(with_cors, settings),
        Middleware(Guard, state=state),
    ]
    app = Starlette(
        routes=_routes(state),
        middleware=middleware,
        exception_handlers={
            ApiError: respond_to,
            GptOssError: _respond_to_ours,
            HTTPException: _respond_to_routing,
        },
    )
    app.state.serving = state
    return app


def _routes(state: ServerState) -> list[BaseRoute]:
    return [
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/models", list_models),
        Route("/v1/models/{model:path}", get_model),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", show_metrics),
        Route("/openapi.json", openapi),
        *responses_routes(state),
        *page_routes(),
    ]


async def _respond_to_ours(_: Request, error: Exception) -> JSONResponse:
    """Answer where the package or the machine is at fault, in the one line that says so."""
    logger.error("a request failed: %s", error)
    return ApiError(500, str(error), SERVER).response()


async def _respond_to_routing(_: Request, error: Exception) -> JSONResponse:
    """Answer a path or a method that there is not."""
    assert isinstance(error, HTTPException)
    answer = ApiError(error.status_code, error.detail, headers=error.headers)
    return answer.response()
