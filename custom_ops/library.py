"""Find the native custom-op library and ask it what it offers."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from gptoss_onnx.errors import RuntimeUnavailable

_FILE_NAME = "libgptoss_ops.so"
_FUNCTIONS = (
    "gptoss_ops_version",
    "gptoss_ops_kernels",
    "gptoss_ops_cpu_level",
    "gptoss_ops_error",
)


@dataclass(frozen=True)
class LibraryInfo:
    """What the installed native library says of itself."""

    path: Path
    version: str
    kernels: frozenset[str]  # operators of domain ai.gptoss with a native kernel
    cpu_level: str  # scalar, avx2, avx512, avx512_vnni, avx512_vbmi, avx512_bf16 or amx


def library_path() -> Path | None:
    """Return where the library is installed, or None where it was not built."""
    # An editable install leaves the built file in site-packages and the sources in the repository;
    # the package's search path names both.
    folders = import_module("gptoss_onnx.custom_ops").__path__
    candidates = (Path(folder) / _FILE_NAME for folder in folders)
    return next((path for path in candidates if path.is_file()), None)


def library_info() -> LibraryInfo:
    """Load the library and return its description.

    Raises `RuntimeUnavailable` when it is not installed, cannot be loaded, or refuses this
    process's `GPTOSS_CPU_LEVEL`.
    """
    path = library_path()
    if path is None:
        raise RuntimeUnavailable(
            f"native library: found no {_FILE_NAME} beside gptoss_onnx.custom_ops; to build it, "
            "reinstall"
            " gptoss-onnx with a C++17 compiler and with GPTOSS_SKIP_NATIVE unset"
        )
    version, kernels, cpu_level, error = _describe(path)
    if error:
        raise RuntimeUnavailable(f"native library: {error}")
    return LibraryInfo(path, version, frozenset(filter(None, kernels.split(","))), cpu_level)


def library_functions(functions: Mapping[str, Sequence[Any]], what: str) -> Any:
    """Return the library with functions declared that return an int; None where it was not built.

    Args:
        functions: the types of the arguments of each, by its name.
        what: the functions serve, for the message.

    Raises RuntimeUnavailable where the library cannot be used, or lacks one of them.
    """
    if library_path() is None:
        return None
    path = library_info().path  # raises where this process's GPTOSS_CPU_LEVEL is refused
    library = ctypes.CDLL(str(path))
    for name, arguments in functions.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:  # an editable install whose library was not built again
            raise RuntimeUnavailable(
                f"native library: {path} is too old for {what}; to rebuild it, reinstall "
                "gptoss-onnx"
            ) from error
        function.argtypes, function.restype = arguments, ctypes.c_int
    return library


def _describe(path: Path) -> list[str]:
    try:
        library = ctypes.CDLL(str(path))
        functions = [getattr(library, name) for name in _FUNCTIONS]
    except (OSError, AttributeError) as error:
        raise RuntimeUnavailable(
            f"native library: {path} cannot be used here ({error}); to rebuild it, reinstall "
            "gptoss-onnx"
            " with a C++17 compiler and with GPTOSS_SKIP_NATIVE unset"
        ) from error
    for function in functions:
        function.restype = ctypes.c_char_p
    return [function().decode() for function in functions]
