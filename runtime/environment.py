"""What this machine offers: ONNX Runtime, whole and alone, and the execution provider asked for."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from types import ModuleType

import numpy as np

from gptoss_onnx.errors import InputError, RuntimeUnavailable
from gptoss_onnx.extras import install_command
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.arguments import shown

_BUILDS = ("onnxruntime", "onnxruntime-gpu")
# ONNX Runtime 1.32 on Linux and macOS writes an id of the machine into the user's cache folder and
# tells its makers of every session, unless this is set before it is imported.
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_PROVIDERS: dict[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    # CUDA takes every node it can; ONNX Runtime itself keeps shape arithmetic on the CPU.
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
# Exact float32: by default CUDA multiplies it as TF32, with 11 bits of mantissa.
_OPTIONS: dict[str, dict[str, str]] = {"CUDAExecutionProvider": {"use_tf32": "0"}}


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, which then reports to nobody: who wants it to sets
    ORT_DISABLE_TELEMETRY=0, or imports it before.

    Raises RuntimeUnavailable if it is not installed, if it cannot be imported, or if both of its
    builds are installed: `onnxruntime` and `onnxruntime-gpu` write into one folder, and the later
    one leaves a mixture that pip takes for sound.
    """
    installed = [name for name in _BUILDS if _is_installed(name)]
    if len(installed) == len(_BUILDS):
        raise RuntimeUnavailable(
            "ONNX Runtime: found both onnxruntime and onnxruntime-gpu, which break each other; "
            "keep one: "
            f"pip uninstall -y onnxruntime onnxruntime-gpu && {install_command('cpu')}  (or [gpu])"
        )
    os.environ.setdefault(_NO_TELEMETRY, "1")
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        found = (
            f"{installed[0]} does not import ({_message(error)})"
            if installed
            else "it is not installed"
        )
        raise RuntimeUnavailable(
            f"ONNX Runtime: {found}; {install_command('cpu')}  (or [gpu])"
        ) from error


def check_version(onnxruntime: ModuleType, package: Package) -> None:
    """Raise RuntimeUnavailable for an ONNX Runtime that is too old for a package."""
    least, found = package.manifest.onnxruntime, str(onnxruntime.__version__)
    if _numbers(found) < _numbers(least):
        older = "--experts int8" if package.manifest.has_op("QMoE") else "--onnxruntime 1.28"
        has_older = package.manifest.target == "ort" and _numbers(least) >= (1, 32)
        otherwise = f", or export it with --target ort {older}" if has_older else ""
        raise RuntimeUnavailable(
            f"this package needs ONNX Runtime {least}, found {found}: "
            f'pip install --upgrade "onnxruntime>={least}"{otherwise}'
        )


def _numbers(version: str) -> tuple[int, int]:
    """Return major and minor of a version, compared as numbers: 1.9 is older than 1.28."""
    major, minor = (*re.findall(r"[0-9]+", version), "0", "0")[:2]
    return int(major), int(minor)


def execution_providers(onnxruntime: ModuleType, provider: str) -> list[tuple[str, dict[str, str]]]:
    """Return the providers to create a session with, each with its options.

    Raises InputError for an unknown provider and RuntimeUnavailable where it cannot run here;
    nothing falls back.
    """
    if not isinstance(provider, str) or provider not in _PROVIDERS:
        raise InputError(
            f"provider: found {shown(provider)}, expected one of {', '.join(_PROVIDERS)}"
        )
    wanted = _PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    if wanted[0] not in available:
        raise RuntimeUnavailable(
            f"provider {provider}: this ONNX Runtime offers {', '.join(available)}, not "
            f"{wanted[0]}; "
            f"pip uninstall -y onnxruntime && {install_command('gpu')}"
        )
    if provider == "cuda":
        _check_cuda_device(onnxruntime)
    return [(name, _OPTIONS.get(name, {})) for name in wanted]


def check_active_provider(session_providers: list[str], provider: str) -> None:
    """Refuse a session that ONNX Runtime created on another provider than asked for (it only
    warns).
    """
    if not session_providers or session_providers[0] != _PROVIDERS[provider][0]:
        raise RuntimeUnavailable(
            f"provider {provider}: ONNX Runtime fell back to {', '.join(session_providers)}; "
            "expected "
            f"{_PROVIDERS[provider][0]} first: install the CUDA and cuDNN libraries this build "
            "needs"
        )


@contextlib.contextmanager
def onnxruntime_errors(onnxruntime: ModuleType, kind: type[Exception], what: str) -> Iterator[None]:
    """Turn what ONNX Runtime raises (its classes share only Exception) into one line of `kind`."""
    try:
        yield
    except native_errors(onnxruntime) as error:
        raise kind(f"{what}: {_message(error)}") from error


def native_errors(onnxruntime: ModuleType) -> tuple[type[Exception], ...]:
    """Return the exception classes ONNX Runtime raises."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    kinds = [
        kind
        for kind in vars(state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]
    return (*kinds, RuntimeError, ValueError)


def _message(error: Exception) -> str:
    """Return an exception's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _check_cuda_device(onnxruntime: ModuleType) -> None:
    """Allocate a few bytes there: the GPU build also installs without a device, and `get_device`
    lies.
    """
    try:
        if hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(sys.stderr):  # it reports missing libraries with print
                onnxruntime.preload_dlls()
        onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except native_errors(onnxruntime) as error:
        raise RuntimeUnavailable(
            f"provider cuda: no CUDA device can be used ({_message(error)}); install the NVIDIA "
            "driver, CUDA and cuDNN"
        ) from error
