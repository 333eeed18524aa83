"""Do with onnxruntime-genai what a test asks for; runs in that package's own environment.

Usage: genai_program.py generate|tokenize|serve PACKAGE; one JSON object comes on stdin, the answer
    goes to stdout as one JSON value. What each command takes and gives is in its docstring.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og


def generate(model: og.Model, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Run generators side by side: {"runs": [{"search": options, "steps": [...]}]}.

    A step is ["append", ids of each row], ["generate", count], ["logits"] or ["rewind", length];
    `turns` true takes one step of each run after the other. Gives the tokens of each row, the
    first row's sequence, and the error that ended the run or null.
    """
    runs = [Run(model, run) for run in asked["runs"]]
    if asked.get("turns"):
        while any([run.step() for run in runs]):
            pass
    for run in runs:
        while run.step():
            pass
    return [run.answer() for run in runs]


class Run:
    """One generator and the steps that it still has to take."""

    def __init__(self, model: og.Model, asked: dict[str, Any]) -> None:
        self._steps = list(asked["steps"])
        self._tokens: list[list[int]] = []
        self._error: str | None = None
        try:
            parameters = og.GeneratorParams(model)
            parameters.set_search_options(do_sample=False, **asked["search"])
            self._generator = og.Generator(model, parameters)
        except RuntimeError as error:
            self._error = str(error)

    def step(self) -> bool:
        """Take the next step; false when none is left or the run has failed."""
        if self._error is not None or not self._steps:
            return False
        name, *arguments = self._steps.pop(0)
        try:
            getattr(self, f"_{name}")(*arguments)
        except RuntimeError as error:
            self._error = str(error)
        return True

    def answer(self) -> dict[str, Any]:
        """Return what the run has given."""
        rows = [list(row) for row in zip(*self._tokens, strict=True)]
        sequence = None if self._error else self._generator.get_sequence(0).tolist()
        return {"tokens": rows, "sequence": sequence, "error": self._error}

    def _append(self, rows: list[list[int]]) -> None:
        self._generator.append_tokens(np.array(rows, np.int32))

    def _generate(self, count: int) -> None:
        for _ in range(count):
            self._generator.generate_next_token()
            self._tokens.append([int(token) for token in self._generator.get_next_tokens()])

    def _until_done(self) -> None:
        while not self._generator.is_done():
            self._generate(1)

    def _logits(self) -> None:
        self._generator.get_logits()

    def _rewind(self, length: int) -> None:
        self._generator.rewind_to(length)


def tokenize(model: og.Model, asked: dict[str, Any]) -> dict[str, Any]:
    """Render {"chats": [keywords of apply_chat_template]}, encode {"texts": [...]}, decode
    {"tokens": [...]} at once and one by one.

    Gives lists under the same names; a chat that fails gives {"error": text}.
    """
    tokenizer = og.Tokenizer(model)
    if "options" in asked:
        tokenizer.update_options(**asked["options"])
    return {
        "chats": [_render(tokenizer, chat) for chat in asked.get("chats", [])],
        "texts": [tokenizer.encode(text).tolist() for text in asked.get("texts", [])],
        "tokens": [tokenizer.decode(np.array(ids, np.int32)) for ids in asked.get("tokens", [])],
        "streams": [_streamed(tokenizer, ids) for ids in asked.get("tokens", [])],
        "batch": tokenizer.encode_batch(asked["texts"]).as_numpy().tolist()
        if "batch" in asked
        else None,
        "eos": [int(token) for token in tokenizer.eos_token_ids],
    }


def _render(tokenizer: og.Tokenizer, chat: dict[str, Any]) -> Any:
    try:
        return tokenizer.apply_chat_template(**chat)
    except RuntimeError as error:
        return {"error": str(error)}


def _streamed(tokenizer: og.Tokenizer, ids: list[int]) -> str:
    stream = tokenizer.create_stream()
    return "".join(stream.decode(token) for token in ids)


def serve(model: og.Model, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Give {"prompts": [ids], "tokens": count, "session": most tokens of each} to an Engine.

    Gives for each prompt its tokens, why it ended with the error's code, and what was raised.
    """
    engine = og.Engine(model)
    buffer = engine.create_event_buffer(len(asked["prompts"]) * 2)
    requests = []
    for prompt in asked["prompts"]:
        options = og.RequestOptions()
        options.set_max_session_tokens(asked["session"])
        request = engine.create_request(options=options)
        turn = og.TurnOptions(request)
        turn.set_do_sample(False)
        turn.set_max_generated_tokens(asked["tokens"])
        turn.set_min_generated_tokens(asked["tokens"])
        request.begin_turn(np.array(prompt, np.int32), turn)
        requests.append(request)
    answers: list[dict[str, Any]] = [{"tokens": [], "ended": None} for _ in requests]
    try:
        while engine.has_pending_requests():
            for event in engine.run(buffer):
                answer = answers[requests.index(event.request)]
                if event.flags.value & og.EngineEventFlags.TOKEN.value:
                    answer["tokens"].append(event.token)
                if event.finish_reason != og.FinishReason.NONE:
                    answer["ended"] = [event.finish_reason.name, event.error_code.name]
        error = None
    except RuntimeError as raised:
        error = str(raised)
    return [answer | {"error": error} for answer in answers]


def main(command: str, package: str) -> None:
    """Open the package, with the overlay that is asked for, and answer."""
    asked = json.load(sys.stdin)
    config = og.Config(str(Path(package)))
    if "overlay" in asked:
        config.overlay(json.dumps(asked["overlay"]))
    commands = {"generate": generate, "tokenize": tokenize, "serve": serve}
    print(json.dumps(commands[command](og.Model(config), asked)))


main(*sys.argv[1:])
