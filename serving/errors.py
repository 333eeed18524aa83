"""ApiError: what a client did wrong, or the server could not do, as OpenAI's error body says it."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.json_text import printable

_LONGEST = 1_000  # characters of one message; some name what a client sent
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*): ")
INVALID, SERVER = "invalid_request_error", "server_error"


class ApiError(GptOssError):
    """One error that a client is told, with its HTTP status.

    Attributes:
        status: of the response.
        message: one line.
        kind: OpenAI's `type`, such as `invalid_request_error`.
        code: OpenAI's `code`, which programs look at; None for most.
        param: the field of the request at fault; None for none.
        headers: of the response, beside those of every response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = INVALID,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.message = printable(" ".join(message.split()))[:_LONGEST]
        super().__init__(self.message)
        self.status, self.kind, self.code, self.param = status, kind, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error body; a stream sends the same as its last event."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def response(self) -> JSONResponse:
        """Return the response that says it."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def wrong_field(param: str, found: str, expected: str) -> ApiError:
    """Return the error of a field whose value does not fit; `found` and `expected` are words."""
    return ApiError(400, f"{param}: found {found}, expected {expected}", param=param)


def refused(error: GptOssError) -> ApiError:
    """Return the error for a value that another room refused; its message begins with the field."""
    message = str(error)
    field = _FIELD.match(message)
    return ApiError(400, message, param=field[1] if field else None)


def unavailable(message: str, retry_after: float = 1.0) -> ApiError:
    """Return the error of a server that takes no more requests, for now."""
    return ApiError(503, message, SERVER, "unavailable", headers=_retry(retry_after))


def too_many(message: str, retry_after: float) -> ApiError:
    """Return the error of a server whose queue is full; `retry_after` are seconds."""
    return ApiError(429, message, "rate_limit_error", "queue_full", headers=_retry(retry_after))


async def respond_to(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that raised an ApiError."""
    assert isinstance(error, ApiError)
    return error.response()


def _retry(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, round(seconds)))}
