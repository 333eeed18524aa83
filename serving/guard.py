"""Guard: who may call, before anything of a request but its headers is read.

Keys are one half of it. The other half is the browser: whoever runs a server on their own machine
also opens web pages of strangers there, and these can send requests to 127.0.0.1. So without keys

- a request's Host must be localhost, an address in numbers, or a name that the operator allows: a
  stranger's page that gives a name of its own to 127.0.0.1 would else be of the server's origin;

and always

- a request with a body must be `application/json`, which a page of another origin cannot send
  without asking first;
- an Origin, which browsers add, must be the server's own or one that the operator allows.
"""

import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_onnx.serving.errors import ApiError, unavailable
from gptoss_onnx.serving.settings import ServerSettings
from gptoss_onnx.serving.state import STOPPING, ServerState

OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json"})  # they tell nothing of anyone
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """Middleware that lets a request through, or answers 401, 403, 415, 431 or 503 itself."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state
        self._gate = Gate(state.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] == "http":
            try:
                self._gate.check(scope)
                if not is_open(scope["path"]):
                    self._check_room(scope["method"])
            except ApiError as error:
                await error.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check_room(self, method: str) -> None:
        state, most = self._state, self._state.settings.max_requests
        if method == "POST" and state.is_stopping:
            raise unavailable(STOPPING)
        if state.active > most:
            raise unavailable(f"the server has {most} requests in work already")


def is_open(path: str) -> bool:
    """Say whether a path is for everybody, with a key or without."""
    return path in OPEN_PATHS or path.startswith("/page/")


class Gate:
    """What a server's settings let in, by the head of a request alone."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._keys = [_digest(key.encode()) for key in settings.api_keys]

    def check(self, scope: Scope) -> None:
        """Raise ApiError 401, 403, 415 or 431 for a request that may not come in."""
        headers, method = Headers(scope=scope), scope["method"]
        self._check_size(scope)
        if not self._keys:
            self._check_host(headers.get("host", ""))
        if method in _CHANGING:
            self._check_origin(headers)
        if is_open(scope["path"]):
            return
        if self._keys:
            self._check_key(headers)
        if method == "POST":
            _check_type(headers)

    def _check_size(self, scope: Scope) -> None:
        most = self._settings.max_header_bytes
        size = len(scope["path"]) + len(scope.get("query_string", b""))
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > most:
            raise ApiError(431, f"headers: found {size} bytes, expected at most {most}")

    def _check_key(self, headers: Headers) -> None:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = _digest(key.strip().encode("latin-1")) if scheme.lower() == "bearer" else b""
        # All keys are compared, each in a time that does not depend on the place of the difference.
        matches = [hmac.compare_digest(given, known) for known in self._keys]
        if not any(matches):
            found = "a key that this server does not know" if given else "none"
            raise ApiError(
                401,
                f"API key: found {found}, expected the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_host(self, host: str) -> None:
        name = _host_name(host)
        allowed = {"localhost", *(given.lower() for given in self._settings.allowed_hosts)}
        if name not in allowed and not _is_address(name):
            raise ApiError(
                403,
                f"Host: found {name[:60]!r}, expected localhost, an address in numbers, or a name "
                "that this server was told to answer to; or set an API key",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        allowed = self._settings.cors_origins
        if origin is None or "*" in allowed or origin in allowed:
            return
        # Behind a proxy that ends TLS the scheme differs; host and port are what a page cannot
        # choose.
        if origin.partition("://")[2].lower() != headers.get("host", "").lower():
            raise ApiError(
                403,
                f"Origin: found {origin[:60]!r}, a page of another site; expected none, this "
                "server's own, or one that it was told to allow",
            )


def _check_type(headers: Headers) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415,
            f"Content-Type: found {kind or 'none'}, expected application/json "
            '(curl: -H "Content-Type: application/json")',
        )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower().rstrip(".")
    except ValueError:  # brackets that do not close
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
