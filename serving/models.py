"""`/v1/models`: the one model that this server has."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.fields import Fields, shown
from gptoss_onnx.serving.state import ServerState, state_of


async def list_models(request: Request) -> JSONResponse:
    """Return the list, of one."""
    return JSONResponse({"object": "list", "data": [_model(state_of(request))]})


async def get_model(request: Request) -> JSONResponse:
    """Return the model of a name."""
    state = state_of(request)
    check_model(state, request.path_params["model"])
    return JSONResponse(_model(state))


def read_model(state: ServerState, fields: Fields) -> None:
    """Check the `model` of a request; a request without one means the one that there is."""
    if fields.has("model"):
        check_model(state, fields.text("model"))


def check_model(state: ServerState, name: str) -> None:
    """Raise ApiError 404 for a name that is not the model's."""
    if name != state.settings.model:
        raise ApiError(
            404,
            f"model: found {shown(name)}, expected {state.settings.model}, the one model here",
            code="model_not_found",
            param="model",
        )


def _model(state: ServerState) -> dict[str, Any]:
    return {
        "id": state.settings.model,
        "object": "model",
        "created": state.created,
        "owned_by": "gptoss-onnx",
        "max_model_len": state.engine.capacity,
    }
