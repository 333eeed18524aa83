"""Runs drawn cases in a process of one CPU level: reads lists of seeds, writes one answer for each.

Knows numpy and ONNX Runtime only, so that it starts fast under sanitizers. Run by fuzz_kernels.py.
"""

import ctypes
import faulthandler
import os
import pickle
import sys
import threading
from collections import OrderedDict

import numpy as np
import onnxruntime
from onnx import ModelProto, helper

from fuzz.case import Answer, Case
from fuzz.draw import draw
from fuzz.memory import Call, GuardError

DOMAIN = "ai.gptoss"
CASE_SECONDS = 120  # a case that takes longer hangs
SESSIONS = 48  # kept open; the oldest is closed, so that destroying is tried too
OUTPUTS = {"SinkAttention": ("output", "present_key", "present_value")}


def model_of(case: Case) -> ModelProto:
    """Return a model of the one op, without portable body, whose inputs may have any rank."""
    names = [name if tensor is not None else "" for name, tensor in case.inputs.items()]
    outputs = OUTPUTS.get(case.op, ("output",))
    node = helper.make_node(
        case.op, names, outputs, name="fuzzed", domain=DOMAIN, **case.attributes
    )
    types = {name: tensor.type for name, tensor in case.inputs.items() if tensor is not None}
    cache = types.get("past_key", types[names[0]])
    output_types = (types[names[0]], cache, cache)
    graph = helper.make_graph(
        [node],
        "fuzz",
        [helper.make_tensor_value_info(name, element, None) for name, element in types.items()],
        [
            helper.make_tensor_value_info(name, output_types[n], None)
            for n, name in enumerate(outputs)
        ],
    )
    imports = [helper.make_opsetid("", 24), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=11)


class Sessions:
    """Open sessions of one library, the most recent ones kept."""

    def __init__(self, library: str) -> None:
        self._library = library
        self._open: OrderedDict[tuple[object, ...], onnxruntime.InferenceSession] = OrderedDict()

    def session(self, case: Case) -> onnxruntime.InferenceSession:
        """Return a session for the case's types, attributes, mode and threads."""
        types = tuple(tensor and tensor.type for tensor in case.inputs.values())
        key = (case.op, types, repr(case.attributes), case.mode, case.threads)
        if key not in self._open:
            self._open[key] = self._create(case)
            if len(self._open) > SESSIONS:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def _create(self, case: Case) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = case.threads
        options.log_severity_level = 4  # a node that is expected to fail keeps off stderr
        options.add_session_config_entry("gptoss.activations", case.mode)
        # there are more threads than cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.register_custom_ops_library(self._library)
        model = model_of(case).SerializeToString()
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answer(sessions: Sessions, seed: int) -> Answer:
    """Run the case of a seed."""
    case = draw(seed)
    try:
        session = sessions.session(case)
        calls = [Call(session, case) for _ in range(1 if case.repeat == "no" else 2)]
        found = run_at_once(calls) if case.repeat == "at once" else [call.run() for call in calls]
    except GuardError as violation:
        return Answer(seed, violation=str(violation))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many types; the reader judges the message
        return Answer(seed, error=str(error))
    if any(a.tobytes() != b.tobytes() for a, b in zip(found[0], found[-1], strict=True)):
        return Answer(seed, violation=f"the same call gave other bits when run {case.repeat}")
    return Answer(seed, outputs=found[0])


def run_at_once(calls: list[Call]) -> list[list[np.ndarray]]:
    """Run the calls in threads of their own; raise what one of them raised."""
    found: dict[int, list[np.ndarray]] = {}
    raised: list[BaseException] = []

    def run(number: int) -> None:
        try:
            found[number] = calls[number].run()
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return [found[number] for number in range(len(calls))]


def cpu_level(library: str) -> str:
    """Return the level that the library chose in this process."""
    function = ctypes.CDLL(library).gptoss_ops_cpu_level
    function.restype = ctypes.c_char_p
    return str(function().decode())


def main() -> None:
    """Answer on the original stdout; whatever else prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    library = sys.argv[1]
    sessions = Sessions(library)
    pickle.dump(cpu_level(library), answers)
    answers.flush()
    while True:
        try:
            seeds = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        for seed in seeds:
            faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
            pickle.dump(answer(sessions, seed), answers)
            answers.flush()
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
