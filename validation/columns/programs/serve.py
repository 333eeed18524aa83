"""Run a graph in another runtime for `validate`: arrays come on stdin and go to stdout.

Usage: serve.py onnx.reference GRAPH | openvino GRAPH | genai PACKAGE

It is run in whatever Python has that runtime, so beside it only numpy is imported. A message is its
length, 8 bytes little-endian, and an npz archive. The first one out says `version` once the file is
open, else `missing` (the runtime is not installed) or `error`. Then each request has an answer:
arrays by name, or `error`.
"""

import io
import os
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

Arrays = dict[str, Any]
LENGTH_BYTES = 8
ERROR_LETTERS = 600


class OnnxReference:
    """onnx.reference, which is written in numpy: a request is the graph's inputs by name, the
    answer its outputs.
    """

    def __init__(self, graph: str) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        self.version = onnx.__version__
        self._evaluator = ReferenceEvaluator(graph)

    def run(self, given: Arrays) -> Arrays:
        """Run the graph."""
        found = self._evaluator.run(None, given)
        return dict(zip(self._evaluator.output_names, found, strict=True))


class OpenVino:
    """OpenVINO on the CPU in float32: requests and answers as for onnx.reference."""

    def __init__(self, graph: str) -> None:
        import openvino  # type: ignore[import-not-found]  # of the Python that runs this

        self.version = openvino.__version__
        core = openvino.Core()
        # By default it rounds to bfloat16, or activations to 8 bits, where the processor can.
        exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        self._compiled = core.compile_model(core.read_model(graph), "CPU", exact)

    def run(self, given: Arrays) -> Arrays:
        """Run the graph."""
        found = self._compiled(given)
        # where it drops an operation, the value before and the one after are the same port
        return {name: found[port] for port in self._compiled.outputs for name in port.names}


class Genai:
    """onnxruntime-genai, which keeps the cache itself.

    A request has `tokens` to append, after `capacity`: to a new sequence of at most so many tokens.
    The answer has the `logits` that it gives. With `count` it chooses so many tokens itself, the
    most likely ones, and answers with these.
    """

    def __init__(self, package: str) -> None:
        import onnxruntime_genai  # type: ignore[import-not-found]  # of that Python

        self._genai, self.version = onnxruntime_genai, onnxruntime_genai.__version__
        self._model = onnxruntime_genai.Model(onnxruntime_genai.Config(package))
        self._generator: Any = None

    def run(self, given: Arrays) -> Arrays:
        """Append tokens, or choose some."""
        if "capacity" in given:
            parameters = self._genai.GeneratorParams(self._model)
            most = int(given["capacity"])
            # as long as that, so that no stop token ends it
            parameters.set_search_options(do_sample=False, max_length=most, min_length=most)
            self._generator = self._genai.Generator(self._model, parameters)
        self._generator.append_tokens(given["tokens"].astype(np.int32))
        if "count" not in given:
            return {"logits": np.asarray(self._generator.get_logits(), np.float32)}
        chosen = []
        for _ in range(int(given["count"])):
            self._generator.generate_next_token()
            chosen.append(int(self._generator.get_next_tokens()[0]))
        return {"tokens": np.array(chosen, np.int64)}


RUNTIMES: dict[str, Any] = {"onnx.reference": OnnxReference, "openvino": OpenVino, "genai": Genai}


def main(name: str, path: str) -> None:
    """Open the file and answer requests until stdin ends."""
    # What libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        runtime = RUNTIMES[name](path)
    except ImportError as error:
        return _send(answers, {"missing": np.array(str(error))})
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is its answer
        return _send(answers, _refusal(error))
    _send(answers, {"version": np.array(str(runtime.version))})
    while head := sys.stdin.buffer.read(LENGTH_BYTES):
        given = sys.stdin.buffer.read(int.from_bytes(head, "little"))
        with np.load(io.BytesIO(given), allow_pickle=False) as arrays:
            request = dict(arrays)
        try:
            answer = runtime.run(request)
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is its answer
            answer = _refusal(error)
        _send(answers, answer)
    return None


def _refusal(error: Exception) -> Arrays:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return {"error": np.array(text[:ERROR_LETTERS])}


def _send(answers: BinaryIO, arrays: Mapping[str, Any]) -> None:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    answers.write(len(packed.getvalue()).to_bytes(LENGTH_BYTES, "little") + packed.getvalue())
    answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
