"""Twenty clients of all manners for some seconds; `python -m load.run` does it for longer."""

import pytest

from gptoss_onnx.exporter import Package
from load.run import load

pytestmark = pytest.mark.slow


def test_a_server_under_load_keeps_its_promises(demo_package: Package) -> None:
    assert load(demo_package.folder, clients=20, seconds=8) == []
