"""The Node client as the tests run it: installed where it stands, and built with its addon once a
test run.
"""

import os
import subprocess
from pathlib import Path

import pytest

from support.one_run import once

CLIENT = Path(__file__).parents[2] / "clients" / "node"


def succeed(*command: str, **environment: str) -> str:
    """Run a command in the client's folder, which must succeed; returns what it printed."""
    done = subprocess.run(
        command,
        cwd=CLIENT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}{done.stderr[-3000:]}"
    return done.stdout


def build_node(factory: pytest.TempPathFactory) -> Path:
    """Return the command line of the client."""
    once(factory, "node-client", _build)
    return CLIENT / "dist" / "cli.js"


def _build() -> None:
    installed, lock = CLIENT / "node_modules" / ".package-lock.json", CLIENT / "package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        succeed("npm", "ci")
    succeed("npm", "run", "build")
    assert (CLIENT / "build" / "Release" / "gptoss_ort.node").is_file(), (
        "the addon was not built: no C++ compiler?"
    )
