"""How each contender of moe.py runs one call: a session of ONNX Runtime, ggml, or transformers."""

from collections.abc import Callable
from dataclasses import dataclass

import ggml_layer
import numpy as np
import onnxruntime
import transformers_layer
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """One call's inputs; routers are drawn anew for every run, so that it needs other experts."""

    hidden: Floats
    routers: list[Floats]


@dataclass(frozen=True)
class Contender:
    """How one contender runs all layers, and what the first one's output is afterwards."""

    run: Callable[[], object]
    output: Callable[[], Floats]


def of_session(session: onnxruntime.InferenceSession, inputs: Inputs) -> Contender:
    """Return a contender that runs a session on bound buffers."""
    binding = session.io_binding()
    names = ["hidden", *(f"router{i}" for i in range(len(inputs.routers)))]
    for name, array in zip(names, (inputs.hidden, *inputs.routers), strict=True):
        # no copy
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    outputs = [
        onnxruntime.OrtValue.ortvalue_from_numpy(np.empty_like(inputs.hidden))
        for _ in inputs.routers
    ]
    for i, output in enumerate(outputs):
        binding.bind_ortvalue_output(f"output{i}", output)
    return Contender(lambda: session.run_with_iobinding(binding), outputs[0].numpy)


def of_ggml(experts: ggml_layer.Experts, inputs: Inputs) -> Contender:
    """Return a contender that runs llama.cpp's experts."""
    call = ggml_layer.Call(experts, len(inputs.hidden))

    def run() -> None:
        call.set_inputs(inputs.hidden, inputs.routers)
        call.run()

    return Contender(run, lambda: call.output(0))


def of_transformers(experts: transformers_layer.Experts, inputs: Inputs) -> Contender:
    """Return a contender that runs transformers' eager experts."""
    return Contender(lambda: experts.run(inputs.hidden, inputs.routers), lambda: experts.output(0))
