"""TritonPythonModel: an engine as a model of Triton's Python backend, decoupled.

Not run on Triton so far; `config.pbtxt` says what goes in and comes out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from gptoss_onnx.errors import GptOssError, InputError
from gptoss_onnx.json_text import parse_json
from gptoss_onnx.runtime import Sampling, Session
from gptoss_onnx.runtime.engine import Engine, FinishReason, GenerationRequest, TokenLogprobs

MAX_NEW_TOKENS = 256
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop_tokens")
_LONGEST = 100_000  # bytes of the settings of one request
_NO_TOKEN = -1


class TritonPythonModel:
    """What Triton makes one of for each instance of the model."""

    def initialize(self, args: Mapping[str, Any]) -> None:
        """Open the package and start the engine."""
        given = json.loads(args["model_config"])["parameters"]
        parameters = {name: entry["string_value"] for name, entry in given.items()}
        self._session = Session.open(parameters["package"])
        try:
            self._engine = Engine(
                self._session,
                slots=int(parameters["slots"]),
                capacity=int(parameters["capacity"]),
                chunk=int(parameters["chunk"]),
                max_queue=int(parameters["max_queue"]),
                prefix_bytes=int(parameters["prefix_bytes"]),
            )
        except BaseException:
            self._session.close()
            raise

    def execute(self, requests: Sequence[Any]) -> None:
        """Give requests to the engine, whose thread answers them."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._engine.submit(_read(request, _Responses(sender), self._stops()))
            except GptOssError as error:
                _fail(sender, str(error))

    def finalize(self) -> None:
        """End what still runs, and free the weights."""
        self._engine.close()
        self._session.close()

    def _stops(self) -> tuple[int, ...]:
        vocab = self._session.vocab
        return tuple(token for token in self._session.package.eos_tokens if token < vocab)


class _Responses:
    """A sink that sends a response for each token, and one that says why it was the last."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def token(self, token: int, logprobs: TokenLogprobs | None) -> bool:
        self._sender.send(_response(token, ""))
        return bool(self._sender.is_cancelled())

    def finish(self, reason: FinishReason, message: str) -> None:
        if reason == "error":
            _fail(self._sender, message)
        else:
            last = triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            self._sender.send(_response(_NO_TOKEN, reason), flags=last)


def _read(request: Any, sink: _Responses, stops: tuple[int, ...]) -> GenerationRequest:
    """Return what a request asks for; raises InputError where it does not fit."""
    tokens = triton.get_input_tensor_by_name(request, "token_ids").as_numpy().ravel()
    given = triton.get_input_tensor_by_name(request, "sampling")
    settings: Any = {}
    if given is not None:
        content = bytes(given.as_numpy().ravel()[0])
        if len(content) > _LONGEST:
            raise InputError(f"sampling: found {len(content)} bytes, expected at most {_LONGEST}")
        settings = parse_json(content, "sampling", InputError)
    if not isinstance(settings, dict):
        raise InputError(f"sampling: found {settings!r:.60}, expected a JSON object")
    settings = dict(settings)
    most = settings.pop("max_new_tokens", MAX_NEW_TOKENS)
    unknown = sorted(settings.keys() - set(_SAMPLING))
    if unknown:
        raise InputError(
            f"sampling: found {unknown[0]!r:.60}, expected max_new_tokens, {', '.join(_SAMPLING)}"
        )
    sampling = Sampling(**{"stop_tokens": stops, **settings})
    return GenerationRequest(tuple(int(token) for token in tokens), sampling, most, sink)


def _response(token: int, reason: str) -> Any:
    return triton.InferenceResponse(
        [
            triton.Tensor("token", np.array([token], np.int64)),
            triton.Tensor("finish_reason", np.array([reason.encode()], np.object_)),
        ]
    )


def _fail(sender: Any, message: str) -> None:
    response = triton.InferenceResponse(error=triton.TritonError(message))
    sender.send(response, flags=triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
