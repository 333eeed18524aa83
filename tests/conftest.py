"""Fixtures that several test files share: one tiny random checkpoint, the demo checkpoint, and a
package of each.
"""

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.idle_threads import idle_threads_sleep
from support.made_once import made_once
from support.one_run import run_folder

# until the tests are collected: what is imported stays, and there is much of it to walk
gc.disable()
# tiny tensors: a second thread only waits, and two spinning pools stall each other
torch.set_num_threads(1)
# other processes of this run want the cores: programs that tests start, too
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

DEMO_CHECKPOINT = Path(__file__).parent.parent / "demo" / "checkpoint"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests, and keep what they import from being walked by each garbage collection,
    which takes most of a second.
    """
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with made_once(run_folder(tmp_path_factory) / "made-once"), idle_threads_sleep():
        yield


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    """The trained checkpoint that the repository ships."""
    return DEMO_CHECKPOINT


@pytest.fixture(scope="session")
def demo_package(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The demo checkpoint exported with its weights copied."""
    return export(demo_checkpoint, tmp_path_factory.mktemp("demo") / "package", weights="copy")


@pytest.fixture(scope="session")
def ort_package(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The demo checkpoint exported for ONNX Runtime's own ops, on its own bytes."""
    folder = tmp_path_factory.mktemp("demo-ort") / "package"
    return export(demo_checkpoint, folder, target="ort", dense="checkpoint")


@pytest.fixture(scope="session")
def ort_int8_package(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The same for ONNX Runtime before 1.32: its experts are 8-bit integers of the same values."""
    folder = tmp_path_factory.mktemp("demo-ort-int8") / "package"
    return export(demo_checkpoint, folder, target="ort", experts="int8", dense="checkpoint")


@pytest.fixture(scope="session")
def packed_package(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The demo checkpoint with its projections in 12 bits."""
    folder = tmp_path_factory.mktemp("demo-packed") / "package"
    return export(demo_checkpoint, folder, dense="packed")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MXFP4 checkpoint of a few hundred kilobytes, without a tokenizer. Tests copy it
    before they break it.
    """
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    make_checkpoint(folder, tiny_document(), seed=11)
    return folder


@pytest.fixture(scope="session")
def tiny_package(tiny_checkpoint: Path) -> Package:
    """The tiny checkpoint exported with hard links."""
    return export(tiny_checkpoint, tiny_checkpoint.parent / "package")
