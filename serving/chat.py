"""`/v1/chat/completions`: a conversation in, an answer out, whole or in chunks."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gptoss_onnx.serving.body import read_body
from gptoss_onnx.serving.chat_bodies import ChatBodies
from gptoss_onnx.serving.chat_request import read_chat
from gptoss_onnx.serving.collected import collect
from gptoss_onnx.serving.owner import prefix_owner
from gptoss_onnx.serving.prepare import prepare_chat
from gptoss_onnx.serving.state import in_thread, state_of
from gptoss_onnx.serving.streaming import EventStream, unless_gone


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    state = state_of(request)
    fields = await read_body(request, state)
    asked = await in_thread(lambda: read_chat(fields, state))
    choices = await unless_gone(request.receive, prepare_chat(state, asked.ask))
    bodies = ChatBodies(state, asked.ask.logprobs is not None)
    running = state.start(choices, prefix_owner(request, state))
    if asked.stream:
        chunks = bodies.chunks(running, len(choices), asked.include_usage)
        return EventStream(chunks, running, state.settings)
    most = state.settings.max_answer_bytes
    with running:
        answers = await unless_gone(request.receive, collect(running, len(choices), most))
        # beside the event loop: log-probabilities of many choices are megabytes
        return await in_thread(lambda: JSONResponse(bodies.whole(answers, running.usage())))
