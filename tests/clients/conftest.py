"""Fixtures that the tests of the C++ client share; those of other clients define a `client` of
their own.
"""

import shutil
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from support.cpp_client import Client, build_client


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The program and the probe, built once."""
    return build_client(tmp_path_factory)


@pytest.fixture
def spoilt(demo_package: Package, tmp_path: Path) -> Path:
    """A copy of the demo package for a test to change."""
    return Path(shutil.copytree(demo_package.folder, tmp_path / "package"))
