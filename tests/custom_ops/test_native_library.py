"""The native library on this machine's ONNX Runtime: entry point, ABI header, thread pool, error
path.
"""

import ctypes
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from gptoss_onnx.custom_ops import library
from gptoss_onnx.errors import RuntimeUnavailable

DOMAIN = "ai.gptoss.selfcheck"
LIBRARY = library.library_path()
CPU_LEVELS = {"scalar", "avx2", "avx512", "avx512_vnni", "avx512_vbmi", "avx512_bf16", "amx"}

built = pytest.mark.skipif(
    LIBRARY is None, reason="the native library was not built (GPTOSS_SKIP_NATIVE)"
)


def self_check_model(rank: int) -> bytes:
    shape = [f"n{axis}" for axis in range(rank)]
    node = helper.make_node("SelfCheck", ["x"], ["y"], name="check", domain=DOMAIN)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "self_check", [x], [y])
    imports = [helper.make_opsetid("", 24), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=11).SerializeToString()


def open_session(rank: int, threads: int = 0) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a failing node is expected here: keep it off stderr
    options.register_custom_ops_library(str(LIBRARY))
    return ort.InferenceSession(self_check_model(rank), options, providers=["CPUExecutionProvider"])


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )


@built
@pytest.mark.parametrize("threads", [1, 2])
def test_self_check_doubles_its_input(threads: int) -> None:
    session = open_session(rank=1, threads=threads)
    for n in (0, 1, 7, 4099):
        x = np.random.default_rng(n).standard_normal(n, dtype=np.float32)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], 2 * x)


@built
def test_two_sessions_share_the_operators() -> None:
    x = np.arange(5, dtype=np.float32)
    first, second = open_session(rank=1), open_session(rank=1)
    del first
    np.testing.assert_array_equal(second.run(None, {"x": x})[0], 2 * x)


@built
def test_wrong_rank_is_an_error_that_names_op_input_found_and_expected() -> None:
    session = open_session(rank=2)
    message = r"SelfCheck: input 'x': found shape \(2, 3\), expected rank 1 \(n\)"
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match=message):
        session.run(None, {"x": np.ones((2, 3), np.float32)})


@built
def test_library_info_describes_the_installed_library() -> None:
    info = library.library_info()
    assert info.path == LIBRARY
    assert info.version == version("gptoss-onnx")
    assert info.cpu_level in CPU_LEVELS
    assert "" not in info.kernels


def test_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "library_path", lambda: None)
    with pytest.raises(RuntimeUnavailable, match=r"reinstall .* GPTOSS_SKIP_NATIVE unset"):
        library.library_info()


def test_damaged_library_says_how_to_rebuild_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damaged = tmp_path / "libgptoss_ops.so"
    damaged.write_bytes(b"not a shared object")
    monkeypatch.setattr(library, "library_path", lambda: damaged)
    with pytest.raises(RuntimeUnavailable, match=r"cannot be used here .* reinstall"):
        library.library_info()


@built
def test_cpu_level_can_be_lowered() -> None:
    code = (
        "from gptoss_onnx.custom_ops.library import library_info; print(library_info().cpu_level)"
    )
    result = run_python(code, GPTOSS_CPU_LEVEL="scalar")
    assert (result.returncode, result.stdout.strip()) == (0, "scalar"), result.stderr


@built
def test_unknown_cpu_level_is_refused_at_registration_and_by_library_info() -> None:
    code = f"""
import onnxruntime
from gptoss_onnx.custom_ops.library import library_info
from gptoss_onnx.errors import RuntimeUnavailable
try:
    onnxruntime.SessionOptions().register_custom_ops_library({str(LIBRARY)!r})
except Exception as error:
    print(error)
try:
    library_info()
except RuntimeUnavailable as error:
    print(error)
"""
    result = run_python(code, GPTOSS_CPU_LEVEL="fast")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all(
        "GPTOSS_CPU_LEVEL: found 'fast', expected a level of this CPU: scalar" in line
        for line in lines
    )


@built
def test_an_older_onnxruntime_gets_a_status_and_no_crash() -> None:
    """A stand-in for an ONNX Runtime that knows API version 1 only: its table needs CreateStatus,
    slot 0.
    """
    create_status_type = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    get_api_type = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    get_version_type = ctypes.CFUNCTYPE(ctypes.c_void_p)

    class ApiBase(ctypes.Structure):
        _fields_ = (("get_api", get_api_type), ("get_version_string", get_version_type))

    messages: list[bytes] = []
    version_string = ctypes.create_string_buffer(b"1.2.3")
    status_address = 1  # any pointer that is not null

    def create_status(_code: int, message: bytes) -> int:
        messages.append(message)
        return status_address

    create_status_function = create_status_type(create_status)
    table = (ctypes.c_void_p * 1)(ctypes.cast(create_status_function, ctypes.c_void_p))
    base = ApiBase(
        get_api_type(lambda wanted: ctypes.addressof(table) if wanted == 1 else None),
        get_version_type(lambda: ctypes.addressof(version_string)),
    )
    register = ctypes.CDLL(str(LIBRARY)).RegisterCustomOps
    register.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    register.restype = ctypes.c_void_p

    assert register(None, ctypes.addressof(base)) == status_address
    assert messages == [b"gptoss_ops: ONNX Runtime is 1.2.3, expected 1.18 or newer (C API 18)"]
