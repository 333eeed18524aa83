"""AccessLog: counts and names requests, and writes a line about each on option."""

import json
import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_onnx.serving.errors import SERVER, ApiError
from gptoss_onnx.serving.state import ServerState
from gptoss_onnx.serving.streaming import CLIENT_LEFT

access_logger = logging.getLogger("gptoss_onnx.serving.access")
OPERATORS_PATHS = frozenset({"/health", "/ready", "/metrics"})  # no work that anyone waits for
_LONGEST_PATH = 200  # characters of a path that a line repeats


class AccessLog:
    """Middleware around everything else; each response gets the header `x-request-id`.

    A line is a JSON object: time, id, client, method, path, status, seconds, and complete: whether
    the client got all of it. It holds no query, no key and nothing of what was asked or answered.
    """

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        request_id = f"req_{uuid.uuid4().hex}"
        status, is_started, is_complete = CLIENT_LEFT, False, False

        async def noting(message: Message) -> None:
            nonlocal status, is_started, is_complete
            if message["type"] == "http.response.start":
                status, is_started = message["status"], True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            elif message["type"] == "http.response.body":
                is_complete = not message.get("more_body", False)
            await send(message)

        counts = int(scope["path"] not in OPERATORS_PATHS)
        self._state.active += counts
        try:
            await self._app(scope, receive, noting)
        except Exception:  # a defect of ours: its traceback is for the log, not for the client
            access_logger.exception("a request failed: %s %s", scope["method"], request_id)
            if is_started:
                raise  # the server closes the connection, which says that the answer is not whole
            await ApiError(500, "the server failed", SERVER).response()(scope, receive, noting)
        finally:
            self._state.active -= counts
            path = scope["path"]
            # Paths that there are not are counted together, because strangers choose them.
            endpoint = getattr(scope.get("route"), "path", "other")
            self._state.metrics.requests.labels(endpoint, str(status)).inc()
            if self._state.settings.access_log:
                line = {
                    "time": round(time.time(), 3),
                    "id": request_id,
                    "client": (scope.get("client") or ("",))[0],
                    "method": scope["method"][:_LONGEST_PATH],
                    "path": path[:_LONGEST_PATH],
                    "status": status,
                    "seconds": round(time.perf_counter() - begin, 4),
                    "complete": is_complete and status != CLIENT_LEFT,
                }
                access_logger.info(json.dumps(line))
