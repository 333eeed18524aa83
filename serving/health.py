"""`/health`, `/ready` and `/metrics`: for whoever runs the server."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptoss_onnx.serving.state import state_of


async def health(request: Request) -> JSONResponse:
    """Say that the server lives."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> JSONResponse:
    """Say whether the server takes requests: 503 from the order to stop on."""
    if state_of(request).is_ready:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "stopping"}, 503)


async def show_metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    # Not beside the event loop: it takes a millisecond, and the threads may be busy with prompts.
    return Response(state_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
