"""The Triton repository: its model on a stand-in of the Python backend's API, and its configuration
against Triton's schema.
"""

import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Sampling, Session

MODEL = Path(__file__).parents[3] / "serving" / "replicas" / "triton" / "gptoss_onnx"
PYTHON = Path(__file__).parents[3] / "build" / "ray" / "bin" / "python"
LONGEST_WAIT = 60  # seconds after which a test gives up instead of hanging
PROMPT = [5, 200, 31, 7]
FINAL = 1
CHECK = """
import sys
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
config = text_format.Parse(open(sys.argv[1]).read(), ModelConfig())
print(config.name, config.backend, config.model_transaction_policy.decoupled)
print(*[tensor.name for tensor in [*config.input, *config.output]])
print(*sorted(config.parameters))
"""


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> Any:
        return self.array


class Sender:
    def __init__(self, cancel_after: int) -> None:
        self.responses: list[Any] = []
        self.over = threading.Event()
        self.cancel_after = cancel_after

    def send(self, response: Any, flags: int = 0) -> None:
        assert not self.over.is_set()
        self.responses.append(response)
        if flags == FINAL:
            self.over.set()

    def is_cancelled(self) -> bool:
        return len(self.responses) >= self.cancel_after


class Request:
    def __init__(self, tokens: Sequence[int], sampling: bytes | None, cancel_after: int) -> None:
        self.tensors = {"token_ids": Tensor("token_ids", np.array(tokens, np.int64))}
        if sampling is not None:
            self.tensors["sampling"] = Tensor("sampling", np.array([sampling], np.object_))
        self.sender = Sender(cancel_after)

    def get_response_sender(self) -> Sender:
        return self.sender


class Response:
    def __init__(self, tensors: Sequence[Tensor] = (), error: Any = None) -> None:
        self.values = {tensor.name: tensor.array[0] for tensor in tensors}
        self.error = error


class TritonError(Exception):
    pass


@pytest.fixture(scope="module")
def model(demo_package: Package) -> Iterator[Any]:
    """The repository's model on the demo, as Triton would make it."""
    stand_in: Any = ModuleType("triton_python_backend_utils")
    stand_in.Tensor, stand_in.InferenceResponse, stand_in.TritonError = (
        Tensor,
        Response,
        TritonError,
    )
    stand_in.TRITONSERVER_RESPONSE_COMPLETE_FINAL = FINAL
    stand_in.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)
    parameters = dict(re.findall(r'key: "(\w+)" value: { string_value: "(.*?)"', config()))
    parameters |= {"package": str(demo_package.folder), "capacity": "64", "slots": "2"}
    values = {name: {"string_value": value} for name, value in parameters.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "triton_python_backend_utils", stand_in)
        spec = importlib.util.spec_from_file_location("triton_model", MODEL / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made = module.TritonPythonModel()
        made.initialize({"model_config": json.dumps({"parameters": values})})
        yield made
        made.finalize()


def config() -> str:
    return (MODEL / "config.pbtxt").read_text()


def answered(
    model: Any,
    sampling: object = None,
    tokens: Sequence[int] = PROMPT,
    cancel_after: int = 1000,
) -> list[Response]:
    content = sampling if isinstance(sampling, bytes) else json.dumps(sampling).encode()
    request = Request(tokens, None if sampling is None else content, cancel_after)
    model.execute([request])
    assert request.sender.over.wait(LONGEST_WAIT)
    return request.sender.responses


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "seed": 4, "top_p": 0.9}])
def test_tokens_are_those_of_a_session(
    model: Any, demo_package: Package, settings: dict[str, Any]
) -> None:
    *tokens, last = answered(model, {"max_new_tokens": 12, **settings})
    with Session.open(demo_package.folder) as session:
        expected = list(session.generate(PROMPT, Sampling(**settings), max_new_tokens=12))
    assert [response.values["token"] for response in tokens] == expected
    assert all(response.values["finish_reason"] == b"" for response in tokens)
    assert last.values["finish_reason"] in (b"length", b"stop")


def test_nothing_is_needed_but_tokens(model: Any) -> None:
    assert answered(model)[-1].values["finish_reason"] in (b"length", b"stop")


def test_a_cancelled_request_ends(model: Any) -> None:
    assert len(answered(model, {"stop_tokens": []}, cancel_after=3)) == 4


@pytest.mark.parametrize(
    ("sampling", "tokens", "message"),
    [
        ({"speed": 1}, PROMPT, "sampling: found 'speed', expected max_new_tokens"),
        ({"temperature": -1}, PROMPT, "temperature: found"),
        ({"max_new_tokens": "many"}, PROMPT, "max_new_tokens"),
        ([1], PROMPT, "expected a JSON object"),
        (b"{", PROMPT, "sampling: not JSON"),
        (b" " * 200_000, PROMPT, "expected at most 100000"),
        ({}, [], ""),
        ({}, [10**9], ""),
        ({}, [1] * 100, ""),
    ],
    ids=repr,
)
def test_wrong_requests_get_one_error(
    model: Any, sampling: object, tokens: list[int], message: str
) -> None:
    (response,) = answered(model, sampling, tokens)
    assert message in str(response.error)
    assert str(response.error)
    assert "\n" not in str(response.error)


@pytest.mark.ray
@pytest.mark.skipif(not PYTHON.exists(), reason="ray_venv.sh has not been run")
def test_the_configuration_is_one_of_tritons_schema() -> None:
    done = subprocess.run(
        [PYTHON, "-c", CHECK, MODEL / "config.pbtxt"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "gptoss_onnx python True",
        "token_ids sampling token finish_reason",
        " ".join(sorted(re.findall(r'key: "(\w+)"', config()))),
    ]
