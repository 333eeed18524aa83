"""`/v1/responses`: make a response, read it, list what it was given, delete it."""

import logging
import time
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gptoss_onnx.serving.body import read_body
from gptoss_onnx.serving.errors import ApiError
from gptoss_onnx.serving.fields import Fields, shown
from gptoss_onnx.serving.models import read_model
from gptoss_onnx.serving.owner import owner_of, prefix_owner
from gptoss_onnx.serving.responses.answering import Answering
from gptoss_onnx.serving.responses.ids import new_id
from gptoss_onnx.serving.responses.input_items import distinct
from gptoss_onnx.serving.responses.listing import page
from gptoss_onnx.serving.responses.prompt import prepare
from gptoss_onnx.serving.responses.request import ResponseRequest, begun, read_request
from gptoss_onnx.serving.responses.store import (
    ResponseStore,
    StoreLimits,
    Turn,
    conversation,
    input_of,
)
from gptoss_onnx.serving.sampling_fields import SamplingFields, read_sampling
from gptoss_onnx.serving.state import ServerState, in_thread
from gptoss_onnx.serving.streaming import EventStream, unless_gone

logger = logging.getLogger(__name__)


def responses_routes(state: ServerState) -> list[Route]:
    """Return the routes of this API, which keep the responses of one server."""
    settings = state.settings
    limits = StoreLimits(
        settings.kept_responses, settings.kept_responses_bytes, settings.kept_responses_seconds
    )
    handlers = _Handlers(state, ResponseStore(limits))
    one = "/v1/responses/{name}"
    return [
        Route("/v1/responses", handlers.create, methods=["POST"]),
        Route(one, handlers.retrieve, methods=["GET"]),
        Route(one, handlers.delete, methods=["DELETE"]),
        Route(f"{one}/input_items", handlers.list_input, methods=["GET"]),
        Route(f"{one}/cancel", handlers.cancel, methods=["POST"]),
    ]


class _Handlers:
    """The handlers of one server."""

    def __init__(self, state: ServerState, store: ResponseStore) -> None:
        self._state, self._store = state, store

    async def create(self, request: Request) -> Response:
        """Make a response, whole or in events."""
        state, owner = self._state, owner_of(request, self._state)
        fields = await read_body(request, state)
        asked, chosen = await in_thread(lambda: _read(fields, state))
        before = self._previous(asked, owner)
        past = await in_thread(lambda: conversation(before))
        asked = replace(asked, items=distinct(asked.items, past))
        choice = await unless_gone(request.receive, prepare(state, asked, past, chosen))
        response = begun(asked, new_id("resp"), state.settings.model, int(time.time()))

        def keep(made: dict[str, Any]) -> None:
            if asked.stores and not self._store.put(made, asked.items, before, owner):
                logger.warning("a response was not kept: its conversation is larger than the store")

        running = state.start([choice], prefix_owner(request, state))
        answering = Answering(
            running, response, state.token_bytes, asked.logprobs is not None, keep
        )
        if asked.streams:
            chunks = answering.chunks()
            return EventStream(chunks, running, state.settings, answering.error_bytes)
        with running:
            body = await unless_gone(request.receive, answering.response())
            # beside the event loop: log-probabilities are megabytes
            return await in_thread(lambda: JSONResponse(body))

    async def retrieve(self, request: Request) -> Response:
        """Return a response that is kept."""
        if request.query_params.get("stream", "false") != "false":
            message = "stream: found true, expected none: events are told once, while they happen"
            raise ApiError(400, message, param="stream")
        return JSONResponse(self._kept(request))

    async def delete(self, request: Request) -> Response:
        """Forget a response."""
        name = request.path_params["name"]
        if not self._store.delete(name, owner_of(request, self._state)):
            raise _unknown(name)
        return JSONResponse({"id": name, "object": "response", "deleted": True})

    async def list_input(self, request: Request) -> Response:
        """List all that the model was given for a response, earlier turns included."""
        name = request.path_params["name"]
        turn = self._store.turn(name, owner_of(request, self._state))
        if turn is None:
            raise _unknown(name)
        items = await in_thread(lambda: input_of(turn))
        return JSONResponse(page(items, request.query_params))

    async def cancel(self, request: Request) -> Response:
        """Refuse: what is kept has ended, and what runs ends when its client leaves."""
        status = self._kept(request)["status"]
        raise ApiError(
            400,
            f"Cannot cancel a synchronous response. It is {status}; one that runs is cancelled by "
            "closing its connection",
        )

    def _kept(self, request: Request) -> dict[str, Any]:
        name = request.path_params["name"]
        response = self._store.response(name, owner_of(request, self._state))
        if response is None:
            raise _unknown(name)
        return response

    def _previous(self, asked: ResponseRequest, owner: str) -> Turn | None:
        """Return the turn that a request continues, if it names one."""
        if asked.previous is None:
            return None
        turn = self._store.turn(asked.previous, owner)
        if turn is None:
            raise ApiError(
                404,
                f"Previous response with id {shown(asked.previous)} not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return turn


def _read(fields: Fields, state: ServerState) -> tuple[ResponseRequest, SamplingFields]:
    read_model(state, fields)
    return read_request(fields), read_sampling(fields, state, state.chat_ends)


def _unknown(name: str) -> ApiError:
    return ApiError(404, f"Response with id {shown(name)} not found.")
