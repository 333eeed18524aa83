"""What the check of wheels and sdists refuses; and, after `make wheels`, that the wheel in dist/
runs where there is nothing but Python.
"""

import importlib.util
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from gptoss_onnx.custom_ops.library import library_path
from gptoss_onnx.exporter import Package

ROOT = Path(__file__).parents[2]
MACHINE = platform.machine()
PROMPT = ("-p", "It was a bright morning, and she", "-n", "20", "--seed", "2", "--json")


@pytest.fixture(scope="module")
def check() -> ModuleType:
    """The script that `make wheels` ends with."""
    spec = importlib.util.spec_from_file_location("check_wheels", ROOT / "wheels" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def library() -> bytes:
    """The library that the compiler of this machine built, for this machine."""
    path = library_path()
    if path is None:
        pytest.skip("the native library was not built (GPTOSS_SKIP_NATIVE)")
    return path.read_bytes()


def wheel_of(library: bytes, machine: str, folder: Path) -> Path:
    path = folder / f"gptoss_onnx-0.1.0-py3-none-manylinux_2_28_{machine}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("gptoss_onnx/custom_ops/libgptoss_ops.so", library)
    return path


def test_a_library_exports_what_its_header_declares_and_nothing_else(
    check: ModuleType, library: bytes
) -> None:
    faults = check.library_faults(library, MACHINE)
    assert not [fault for fault in faults if "export" in fault]


def test_a_library_that_needs_a_cpp_runtime_is_refused(
    check: ModuleType, library: bytes, tmp_path: Path
) -> None:
    (fault, *_) = check.wheel_faults(wheel_of(library, MACHINE, tmp_path))
    assert "needs lib" in fault
    assert "c++.so" in fault


def test_a_library_of_another_machine_is_refused(
    check: ModuleType, library: bytes, tmp_path: Path
) -> None:
    other = next(machine for machine in check.MACHINES if machine != MACHINE)
    (fault, *_) = check.wheel_faults(wheel_of(library, other, tmp_path))
    assert fault.startswith("found a library for EM_")


def test_a_wheel_of_one_machine_alone_is_refused(check: ModuleType) -> None:
    (fault,) = check.wheel_faults(Path("gptoss_onnx-0.1.0-py3-none-linux_x86_64.whl"))
    assert "found no tag py3-none-manylinux_2_28" in fault


def test_an_sdist_without_licence_or_with_weights_is_refused(
    check: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "gptoss_onnx-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as sdist:
        for name in ("PKG-INFO", "pyproject.toml", "demo/checkpoint/model.safetensors"):
            sdist.addfile(tarfile.TarInfo(f"gptoss_onnx-0.1.0/{name}"), io.BytesIO())
    assert check.sdist_faults(path) == [
        "lacks LICENSE",
        "lacks custom_ops/native/CMakeLists.txt",
        "holds demo/checkpoint/model.safetensors, expected no weights",
    ]


def published(pattern: str) -> list[Path]:
    found = sorted((ROOT / "dist").glob(pattern))
    assert found, f"found no dist/{pattern}: run make wheels first"
    return found


@pytest.mark.wheels
def test_what_make_wheels_wrote_is_right(check: ModuleType) -> None:
    for path in published("gptoss_onnx-*manylinux*.whl"):
        assert check.wheel_faults(path) == []
    for path in published("gptoss_onnx-*.tar.gz"):
        assert check.sdist_faults(path) == []


@pytest.mark.wheels
def test_the_wheel_runs_where_there_is_nothing_but_python(
    demo_package: Package, tmp_path: Path
) -> None:
    """Without a compiler on the path, the wheel says what this tree says, with native kernels."""
    (wheel,) = published(f"gptoss_onnx-*manylinux*_{MACHINE}.whl")
    path = tmp_path / "path"  # stays empty
    path.mkdir()
    bare = {"PATH": str(path), "HOME": str(tmp_path)}
    network = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, env=bare | network, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", tmp_path / "venv")
    installed = tmp_path / "venv" / "bin"
    run(installed / "pip", "install", "--only-binary", ":all:", f"{wheel}[cpu]")
    options = ("generate", demo_package.folder, *PROMPT, "--kernels", "native")
    found = json.loads(run(installed / "gptoss-onnx", *options))
    assert found["kernels"] == "native"
    here = json.loads(run(Path(sys.executable).with_name("gptoss-onnx"), *options))
    assert found["text"] == here["text"]
