"""with_cors: let web pages of allowed origins read an application's answers."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gptoss_onnx.serving.settings import ServerSettings


def with_cors(app: ASGIApp, settings: ServerSettings) -> ASGIApp:
    """Return an application whose answers say which pages may read them; `app` itself where none
    may.
    """
    if not settings.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=("x-request-id", "retry-after"),
    )
