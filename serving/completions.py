"""`/v1/completions`: texts in, their continuations out, whole or in chunks."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptoss_onnx.serving.body import read_body
from gptoss_onnx.serving.collected import collect
from gptoss_onnx.serving.owner import prefix_owner
from gptoss_onnx.serving.prepare import LONG, text_size
from gptoss_onnx.serving.state import in_thread, state_of
from gptoss_onnx.serving.streaming import EventStream, unless_gone
from gptoss_onnx.serving.text_bodies import TextBodies
from gptoss_onnx.serving.text_request import read_text


async def completions(request: Request) -> Response:
    """Continue texts."""
    state = state_of(request)
    fields = await read_body(request, state)
    is_long = text_size(fields.value.get("prompt")) > LONG
    run = state.slowly if is_long else in_thread
    asked = await unless_gone(request.receive, run(lambda: read_text(fields, state)))
    bodies = TextBodies(state, asked)
    running = state.start(asked.choices, prefix_owner(request, state))
    if asked.stream:
        return EventStream(bodies.chunks(running), running, state.settings)
    most = state.settings.max_answer_bytes
    with running:
        answers = await unless_gone(request.receive, collect(running, len(asked.choices), most))
        # beside the event loop: log-probabilities of many choices are megabytes
        return await in_thread(lambda: JSONResponse(bodies.whole(answers, running.usage())))
