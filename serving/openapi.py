"""`/openapi.json`: the description of the API, written by hand and held to the server by a test."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from gptoss_onnx.serving.state import in_thread


async def openapi(_: Request) -> Response:
    """Return the description."""
    text = await in_thread(
        lambda: files("gptoss_onnx.serving").joinpath("openapi.json").read_text()
    )
    return Response(text, media_type="application/json")
