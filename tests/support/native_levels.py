"""Run one-op models with the native kernels, at the CPU level in use and at each of the others this
machine has.

The library reads GPTOSS_CPU_LEVEL once, so each level has a process of its own, started once for a
test run:

    cases = [NativeCase(op_model("Linear", inputs, {}).SerializeToString(), inputs) for inputs in
    ...] for level in cpu_levels():
        outputs = run_at_level(level, cases, tmp_path)  # per case, its outputs
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
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
_DONE = "done\n"

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
    process = _process(level)
    assert process.stdin and process.stdout
    process.stdin.write(f"{given}\t{found}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer == _DONE, (
        f"level {level}: its process ended with {process.wait()}; stderr says why"
    )
    outputs: list[list[torch.Tensor]] = torch.load(found)
    return outputs


@cache
def _session(
    model: bytes | str, config: tuple[tuple[str, str], ...], threads: int
) -> onnxruntime.InferenceSession:
    return native_session(model, dict(config), threads)


@cache
def _process(level: str) -> subprocess.Popen[str]:
    """Start the process of `level`; it ends when the test run does, which closes its standard
    input.
    """
    environment = {
        **os.environ,
        "GPTOSS_CPU_LEVEL": level,
        "GPTOSS_TEST_LIBRARY": str(LIBRARY),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    command = [sys.executable, "-m", "support.native_levels"]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> None:
    """Run the cases of each line's first file and write their outputs to its second."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        given, found = line.rstrip("\n").split("\t")
        torch.save([run_case(NativeCase(**case)) for case in torch.load(given)], found)
        sys.stdout.write(_DONE)
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
