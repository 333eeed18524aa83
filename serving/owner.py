"""Whose a request is: what is kept for one API key serves no other."""

import hashlib

from starlette.requests import Request

from gptoss_onnx.serving.state import ServerState


def owner_of(request: Request, state: ServerState) -> str:
    """Return who asks: a name of the request's key, which is not the key, or "" without keys."""
    if not state.settings.api_keys:
        return ""
    key = request.headers.get("authorization", "").partition(" ")[2].strip()
    return hashlib.sha256(key.encode("latin-1")).hexdigest()


def prefix_owner(request: Request, state: ServerState) -> str:
    """Return whose saved rows a request's prompts may begin with; "" is everybody's."""
    return "" if state.settings.shares_prefixes else owner_of(request, state)
