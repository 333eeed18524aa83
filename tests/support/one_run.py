"""What the processes of a parallel test run share: one folder, and work that one of them does for
all.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Return a temporary folder that all processes of this test run share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(factory: pytest.TempPathFactory, name: str, work: Callable[[], None]) -> None:
    """Do the work of this name unless a process of this test run has; what is being done is waited
    for.
    """
    done = run_folder(factory) / f"{name}.done"
    with FileLock(done.with_suffix(".lock")):
        if not done.exists():
            work()
            done.touch()
