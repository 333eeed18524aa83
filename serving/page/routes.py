"""page_routes: what a browser is given of the chat page."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
}
# Nothing is run, fetched or shown that this server did not send, whatever a model says, and no page
# of another site shows this one within itself.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A page of one version with the script of another would fail in strange ways.
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """Return the routes of `/` and of what lies below `/page/`; the files are read here, once."""
    page = {
        file.name: file.read_bytes()
        for file in files(__package__).iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }
    index = page.pop("index.html")
    return [
        _route("/", "index.html", index),
        *(_route(f"/page/{name}", name, content) for name, content in sorted(page.items())),
    ]


def _route(path: str, name: str, content: bytes) -> Route:
    async def answer(_: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=_TYPES[name.rpartition(".")[2]])

    return Route(path, answer, methods=["GET"], name=name)
