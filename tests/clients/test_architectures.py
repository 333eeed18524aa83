"""Every architecture in every client: golden vectors of the reference, from a tiny checkpoint."""

import json
from pathlib import Path

import pytest

from gptoss_onnx.custom_ops.library import library_path
from gptoss_onnx.exporter import export
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.browser_client import BrowserClient
from support.cpp_client import Client
from support.node_client import build_node, succeed

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    make_checkpoint(folder / "checkpoint", tiny_document(request.param))
    return export(folder / "checkpoint", folder / "package", weights="copy").folder


@pytest.fixture(scope="module", params=ARCHITECTURES)
def ort_package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"{request.param}-ort")
    make_checkpoint(folder / "checkpoint", tiny_document(request.param))
    return export(folder / "checkpoint", folder / "package", target="ort").folder


@pytest.mark.cpp
def test_cpp_on_target_ort(client: Client, ort_package: Path) -> None:
    result = client.run(ort_package, "--verify", "--json")
    assert result.code == 0, result.out + result.err
    assert result.json["kernels"] == "contrib"


@pytest.mark.cpp
@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_cpp(client: Client, package: Path, kernels: str) -> None:
    result = client.run(package, "--verify", "--json", "--kernels", kernels)
    assert result.code == 0, result.out + result.err
    assert result.json["kernels"] == kernels


@pytest.mark.node
@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_node(package: Path, tmp_path_factory: pytest.TempPathFactory, kernels: str) -> None:
    words = ("--kernels", kernels, "--library", str(library_path()), "--threads", "1")
    program = str(build_node(tmp_path_factory))
    verdict = json.loads(succeed("node", program, "verify", str(package), *words))
    assert (verdict["passed"], verdict["kernels"]) == (True, kernels)


@pytest.mark.browser
def test_browser(browser: BrowserClient, package: Path) -> None:
    result = browser.run("verify", package)
    assert result.returncode == 0, result.stdout + result.stderr
