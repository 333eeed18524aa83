"""The oldest ONNX Runtime that packages say they run on runs them, in Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.one_run import once
from support.other_runtime import ROOT

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

VALIDATE = "import sys; from gptoss_onnx.cli import main; sys.exit(main(sys.argv[1:]))"


def python_library(factory: pytest.TempPathFactory, version: str) -> Path:
    """Return a folder to import ONNX Runtime of a version from, fetched unless it is there."""
    folder = ROOT / "build" / f"onnxruntime-python-{version}"

    def fetch() -> None:
        if not list(folder.glob(f"onnxruntime-{version}.dist-info")):
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps"]
            command = [*pip, "--target", str(folder), f"onnxruntime=={version}"]
            environment = {key: os.environ[key] for key in os.environ if key != "PIP_CONSTRAINT"}
            subprocess.run(command, check=True, env=environment)

    once(factory, folder.name, fetch)
    return folder


def validate_on(
    library: Path, package: Path, checkpoint: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run `gptoss-onnx validate` with the ONNX Runtime of a folder."""
    command = [sys.executable, "-c", VALIDATE, "validate", str(package)]
    command += ["--reference", str(checkpoint), *options]
    environment = {**os.environ, "PYTHONPATH": str(library), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_portable_packages_run_on_1_28(
    tiny_package: Package,
    tiny_checkpoint: Path,
    kernels: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    library = python_library(tmp_path_factory, "1.28.0")
    assert tiny_package.manifest.onnxruntime == "1.28"
    done = validate_on(library, tiny_package.folder, tiny_checkpoint, "--kernels", kernels)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not offered" not in done.stdout


def test_target_ort_without_windows_runs_on_1_28(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = python_library(tmp_path_factory, "1.28.0")
    make_checkpoint(tmp_path / "checkpoint", tiny_document("llama"), seed=2)
    made = export(tmp_path / "checkpoint", tmp_path / "package", target="ort", onnxruntime="1.28")
    assert made.manifest.onnxruntime == "1.28"
    done = validate_on(library, made.folder, tmp_path / "checkpoint")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["1.28.0", "1.29.0"])
def test_target_ort_with_windows_runs_on_1_29(
    tiny_checkpoint: Path, version: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    library = python_library(tmp_path_factory, version)
    made = export(tiny_checkpoint, tmp_path / "package", target="ort", experts="int8")
    done = validate_on(library, made.folder, tiny_checkpoint)
    if version == "1.29.0":
        assert done.returncode == 0, done.stdout + done.stderr
        return
    line = 'this package needs ONNX Runtime 1.29, found 1.28.0: pip install --upgrade "onnxruntime'
    assert (done.returncode, line in done.stderr) == (2, True), done.stderr
