"""ONNX Runtime reports to nobody, unless the user says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package

PROGRAM = """
import sys
from gptoss_onnx.runtime import Session
with Session.open(sys.argv[1]):
    pass
"""


def home_after_opening(package: Package, home: Path, **settings: str) -> list[str]:
    """Return the files in a user's folder after a session, as on a machine that is no CI's."""
    kept = {name: os.environ[name] for name in ("PATH", "GPTOSS_CPU_LEVEL") if name in os.environ}
    environment = {**kept, "HOME": str(home), **settings}
    command = [sys.executable, "-c", PROGRAM, str(package.folder)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def test_a_session_leaves_nothing_in_the_users_folder(
    demo_package: Package, tmp_path: Path
) -> None:
    assert home_after_opening(demo_package, tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="ONNX Runtime has another way there")
def test_who_wants_to_report_still_can(demo_package: Package, tmp_path: Path) -> None:
    """It shows too that the test above can fail."""
    assert "deviceid" in home_after_opening(demo_package, tmp_path, ORT_DISABLE_TELEMETRY="0")
