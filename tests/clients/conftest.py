"""Fixtures that the tests of one client share: `client` is that in C++, `browser` that in the
browser.
"""

import shutil
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package
from support.browser_client import BrowserClient, build_browser
from support.cpp_client import Client, build_client


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The program and the probe, built once."""
    return build_client(tmp_path_factory)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> BrowserClient:
    """The programs of the browser client."""
    return build_browser(tmp_path_factory)


@pytest.fixture
def spoilt(demo_package: Package, tmp_path: Path) -> Path:
    """A copy of the demo package for a test to change."""
    return Path(shutil.copytree(demo_package.folder, tmp_path / "package"))
