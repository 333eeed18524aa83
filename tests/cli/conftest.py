"""Fixtures of the command line's tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.desk import Desk
from support.tiny_package import tiny_checkpoint, tiny_package


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a tokenizer; not to be written to."""
    return tiny_checkpoint(tmp_path_factory)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its package; not to be written to."""
    return tiny_package(tmp_path_factory)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C counts, here and in programs that the test starts. A shell that runs the tests in the
    background makes them ignore it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def desk(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A checkpoint and a package, both free to be spoilt."""
    return Desk(tmp_path, tmp_path_factory)
