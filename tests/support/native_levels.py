"""Run one-op models with the native kernels, at the CPU level in use and at each of the others this
machine has.

The library reads GPTOSS_CPU_LEVEL once, so each level has a process of its own, started once for a
test run and forked from one that has imported torch for all of them:

    cases = [NativeCase(op_model("Linear", inputs, {}).SerializeToString(), inputs) for inputs in
    ...] for level in cpu_levels():
        outputs = run_at_level(level, cases, tmp_path)  # per case, its outputs
"""

import ctypes
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import onnxruntime
import pytest
import torch

from gptoss_onnx.custom_ops import library
from support.op_models import run_ort

# GPTOSS_TEST_LIBRARY names another build than the installed one, for instance one with sanitizers.
LIBRARY = (
    Path(os.environ["GPTOSS_TEST_LIBRARY"])
    if "GPTOSS_TEST_LIBRARY" in os.environ
    else library.library_path()
)
# Each includes the ones before it.
LEVELS = ("scalar", "avx2", "avx512", "avx512_vnni", "avx512_vbmi", "avx512_bf16", "amx")

needs_native = pytest.mark.skipif(
    LIBRARY is None, reason="the native library was not built (GPTOSS_SKIP_NATIVE)"
)


@dataclass(frozen=True)
class NativeCase:
    """A model (its bytes, or its path where it has external data), its inputs, and how the session
    is set up.
    """

    model: bytes | str
    inputs: Mapping[str, torch.Tensor | None]
    # session config entries, as gptoss.activations
    config: Mapping[str, str] = field(default_factory=dict)
    threads: int = 2


def cpu_levels() -> tuple[str, ...]:
    """Return the levels that this machine has, worst first."""
    if LIBRARY is None:
        return ()
    best = ctypes.CDLL(str(LIBRARY)).gptoss_ops_cpu_level
    best.restype = ctypes.c_char_p
    return LEVELS[: LEVELS.index(best().decode()) + 1]


def native_session(
    model: bytes | str, config: Mapping[str, str] | None = None, threads: int = 2
) -> onnxruntime.InferenceSession:
    """Open a session whose `ai.gptoss` nodes run natively."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a node that is expected to fail keeps off stderr
    # other tests want the cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in (config or {}).items():  # before registering: the library reads them then
        options.add_session_config_entry(key, value)
    options.register_custom_ops_library(str(LIBRARY))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_case(case: NativeCase) -> list[torch.Tensor]:
    """Return the outputs of one case at the CPU level in use."""
    return run_ort(_session(case.model, tuple(case.config.items()), case.threads), case.inputs)


def run_at_level(level: str, cases: Sequence[NativeCase], folder: Path) -> list[list[torch.Tensor]]:
    """Return the outputs of each case, computed in the process of `level`; files go to `folder`."""
    given, found = folder / f"{level}.cases.pt", folder / f"{level}.outputs.pt"
    torch.save([vars(case) for case in cases], given)
    process, connection = _process(level)
    try:
        connection.send((given, found))
        connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        pytest.fail(f"level {level}: its process ended with {process.exitcode}; stderr says why")
    outputs: list[list[torch.Tensor]] = torch.load(found)
    return outputs


@cache
def _session(
    model: bytes | str, config: tuple[tuple[str, str], ...], threads: int
) -> onnxruntime.InferenceSession:
    return native_session(model, dict(config), threads)


@cache
def _process(level: str) -> tuple[BaseProcess, Connection]:
    """Start the process of `level`, a fork of one that has imported all of this, and return it with
    the connection to it; it ends when the test run does.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    ours, theirs = forks.Pipe()
    process = forks.Process(target=_serve, args=(level, theirs), daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        # what is to be imported before the forks is looked for here, and missed in silence
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        process.start()
    theirs.close()
    return process, ours


def _serve(level: str, connection: Connection) -> None:
    """Run the cases of each file that is named, and write their outputs to the file beside it."""
    os.environ["GPTOSS_CPU_LEVEL"] = level  # the library is loaded with the first session
    assert cpu_levels()[-1] == level
    torch.set_num_threads(1)
    with suppress(EOFError):
        while True:
            given, found = connection.recv()
            torch.save([run_case(NativeCase(**case)) for case in torch.load(given)], found)
            connection.send(None)
