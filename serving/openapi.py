"""`/openapi.json`: the description of the API, written by hand and held to the server by a test."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from gptoss_onnx.serving.state import in_thread


async def openapi(_: Request) -> Response:
    """Return the description."""
    path = files("gptoss_onnx.serving").joinpath("openapi.json")
    return Response(await in_thread(path.read_bytes), media_type="application/json")
