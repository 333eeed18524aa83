"""The fuzzer on the native kernels: a short run at every CPU level, a longer one under sanitizers,
and no leaks.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.native_levels import LIBRARY, needs_native

FUZZER = Path(__file__).with_name("fuzz_kernels.py")
ENCODING = Path(__file__).with_name("fuzz_encoding.py")
LEAKS = Path(__file__).with_name("leaks.py")
SOURCES = Path(__file__).parents[2] / "custom_ops" / "native"


def run(script: Path, *arguments: object) -> None:
    command = [sys.executable, str(script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_native
def test_random_calls_equal_the_definition_or_are_refused() -> None:
    run(FUZZER, "--seconds", 4, "--seed", 1, "--library", LIBRARY)


@needs_native
def test_random_matrices_are_converted_as_the_definition_does() -> None:
    run(ENCODING, "--seconds", 2, "--seed", 1, "--library", LIBRARY)


@needs_native
def test_sessions_and_errors_leave_no_memory_behind() -> None:
    run(LEAKS, LIBRARY)


@pytest.mark.slow
@pytest.mark.cpp
@pytest.mark.timeout(3600)  # building with sanitizers takes minutes
def test_random_calls_under_sanitizers(tmp_path: Path) -> None:
    jobs = str(os.cpu_count() or 1)
    configure = ["cmake", "-S", SOURCES, "-B", tmp_path, "-DGPTOSS_SANITIZE=address,undefined"]
    subprocess.run(configure, check=True)
    subprocess.run(["cmake", "--build", tmp_path, "--parallel", jobs], check=True)
    for fuzzer in (FUZZER, ENCODING):
        run(fuzzer, "--seconds", 60, "--seed", 2, "--library", tmp_path / "libgptoss_ops.so")
