"""`/tokenize` and `/detokenize`, in the forms of vLLM (`prompt`) and of llama.cpp (`content`)."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.body import read_body
from gptoss_onnx.serving.chat_request import read_prompt
from gptoss_onnx.serving.errors import refused, wrong_field
from gptoss_onnx.serving.fields import Fields, shown
from gptoss_onnx.serving.models import read_model
from gptoss_onnx.serving.prepare import LONG, check_text, content_size, text_size
from gptoss_onnx.serving.prompts import render_chat
from gptoss_onnx.serving.state import ServerState, in_thread, state_of

_MOST_TOKENS = 1_000_000
_LONGEST_TEXT = 1_000_000  # characters, where the context is shorter


async def tokenize(request: Request) -> JSONResponse:
    """Return the tokens of a text, or of a chat with the beginning of its answer."""
    state = state_of(request)
    fields = await read_body(request, state)
    run = state.slowly if text_size(fields.value) > LONG else in_thread
    tokens = await run(lambda: _tokens(fields, state))
    body = {"count": len(tokens), "max_model_len": state.engine.capacity, "tokens": tokens}
    return await in_thread(lambda: JSONResponse(body))


async def detokenize(request: Request) -> JSONResponse:
    """Return the text of tokens, special tokens included."""
    state = state_of(request)
    fields = await read_body(request, state)
    text = await in_thread(lambda: _text(fields, state))
    return JSONResponse({"prompt": text, "content": text})


def _tokens(fields: Fields, state: ServerState) -> list[int]:
    read_model(state, fields)
    try:
        if fields.has("messages"):
            prompt = read_prompt(fields)
            check_text(state, content_size(prompt))
            return list(render_chat(state.tokenizer, prompt))
        name = "content" if fields.has("content") else "prompt"
        adds = fields.boolean("add_special_tokens", True)
        return state.tokenizer.encode(
            fields.text(name, longest=max(_LONGEST_TEXT, state.longest_text)), adds
        )
    except InputError as error:
        raise refused(error) from error


def _text(fields: Fields, state: ServerState) -> str:
    read_model(state, fields)
    tokens = fields.items("tokens", _MOST_TOKENS)
    for place, token in enumerate(tokens):
        if type(token) is not int or not 0 <= token < state.vocab:
            expected = f"the id of a token, 0 to {state.vocab - 1}"
            raise wrong_field(f"tokens[{place}]", shown(token), expected)
    return state.tokenizer.decode(tokens, skip_special_tokens=False)
