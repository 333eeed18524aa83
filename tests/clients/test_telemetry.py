"""ONNX Runtime reports to nobody from a client, unless the user says so."""

import os
import subprocess
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from support.cpp_client import Client
from support.node_client import build_node

pytestmark = pytest.mark.clients

IDS = ["--prompt-tokens", "1428,304", "--max-new-tokens", "2", "--threads", "1"]


def home_after(command: list[str | Path], home: Path, **settings: str) -> list[str]:
    """Return the files in a user's folder after a command, as on a machine that is no CI's."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **settings}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return sorted(path.name for path in home.rglob("*") if path.is_file())


@pytest.mark.cpp
def test_the_cpp_client_leaves_nothing_in_the_users_folder(
    client: Client, demo_package: Package, tmp_path: Path
) -> None:
    command = [client.program, demo_package.folder, "--library", client.library, *IDS]
    assert home_after(command, tmp_path) == []
    # who wants to report still can, which shows that the line above can fail
    assert "deviceid" in home_after(command, tmp_path, ORT_DISABLE_TELEMETRY="0")


@pytest.mark.node
@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_the_node_client_leaves_nothing_in_the_users_folder(
    client: Client,
    demo_package: Package,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    kernels: str,
) -> None:
    words = ["--library", client.library, "--kernels", kernels, *IDS]
    node = build_node(tmp_path_factory)
    assert home_after(["node", node, "generate", demo_package.folder, *words], tmp_path) == []
