"""read_body: the JSON object of a request, read within limits on its size and its time."""

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import parse_json
from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.fields import Fields
from gptoss_onnx.serving.settings import ServerSettings
from gptoss_onnx.serving.state import in_thread
from gptoss_onnx.serving.streaming import client_left

_QUICK = 65_536  # bytes that are parsed at once; more are parsed beside the event loop
# Objects and lists: eight megabytes of empty ones take seconds, in which Python does nothing else.
MOST_PARTS = 100_000


async def read_body(request: Request, settings: ServerSettings) -> Fields:
    """Return the fields of a request's body.

    Raises ApiError as `read_content`, and 400 for what is not a JSON object.
    """
    content = await read_content(request, settings)
    if len(content) <= _QUICK:
        return Fields(_parse(content))
    return Fields(await in_thread(lambda: _parse(content)))


async def read_content(request: Request, settings: ServerSettings) -> bytes:
    """Return a request's body.

    Raises ApiError: 413 for one that is too large, counted as it comes; 408 for one that comes too
    slowly; 499 for a client that left.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > settings.max_body_bytes:
        raise _too_large(settings)
    try:
        async with asyncio.timeout(settings.body_seconds):
            return await _content(request, settings)
    except TimeoutError:
        raise ApiError(408, f"body: it did not arrive within {settings.body_seconds:g} s") from None
    except ClientDisconnect:
        raise client_left() from None


async def _content(request: Request, settings: ServerSettings) -> bytes:
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > settings.max_body_bytes:
            raise _too_large(settings)
    return bytes(received)


def _parse(content: bytes) -> Any:
    try:
        return parse_json(content, "body", InputError, MOST_PARTS)
    except InputError as error:
        raise ApiError(400, str(error)) from error


def _too_large(settings: ServerSettings) -> ApiError:
    # What is left of the body is not read, so the connection cannot be used again.
    return ApiError(
        413,
        f"body: found more than {settings.max_body_bytes} bytes, the most that this server takes",
        headers={"Connection": "close"},
    )
