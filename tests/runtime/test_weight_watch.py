"""Weights that change while a session has them mapped: refused before they crash the process or
change a text.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Sampling, Session, open_graph
from support.fake_package import VOCAB, write_fake_package

WINDOWS = (0, 3, 8)
ENDLESS = Sampling(stop_tokens=())


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_fake_package(tmp_path / "package", WINDOWS)


@pytest.fixture
def opened(package: Path) -> Iterator[Session]:
    with Session.open(package, threads=1) as session:
        yield session


def _rewrite(path: Path) -> None:
    """Change a byte in place, as training that goes on does."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x41")
    os.utime(path, ns=(1, 1))


CHANGES = {
    "rewritten": (_rewrite, r"found modification time 1 ns, expected \d+"),
    "cut off": (lambda path: os.truncate(path, 64), r"found 64 bytes, expected \d+"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_text_begins_with_a_look_at_the_weights(
    opened: Session, package: Path, change: str
) -> None:
    weights = package / "weights.safetensors"
    fresh, used = opened.new_cache(1, 9), opened.new_cache(1, 9)
    opened.forward([[1]], used)
    running = opened.generate([1], ENDLESS, max_new_tokens=3)
    next(running)
    mutate, found = CHANGES[change]
    mutate(weights)
    changed = f"{weights}: changed while the session had it open: {found}"
    message = rf"^{changed}; open the package again[^\n]*$"
    for begin in (
        lambda: opened.forward([[1]], fresh),
        lambda: opened.score([1, 2]),
        lambda: next(opened.generate([1], ENDLESS)),
        lambda: next(opened.generate([1], ENDLESS, cache=used)),
        lambda: opened.forward([[1]], _reset(used)),
        opened.check_weights,
    ):
        with pytest.raises(PackageError, match=message):
            begin()
    assert fresh.lengths.tolist() == [0]


def _reset(cache):  # type: ignore[no-untyped-def]  # a line of the test above
    cache.reset()
    return cache


def test_a_replaced_or_deleted_file_has_not_changed(opened: Session, package: Path) -> None:
    """What is mapped is the old file, whatever has its name now."""
    before = opened.score([1, 2, 3])
    weights = package / "weights.safetensors"
    other = weights.with_suffix(".new")
    other.write_bytes(weights.read_bytes()[::-1])
    other.replace(weights)
    np.testing.assert_array_equal(opened.score([1, 2, 3]), before)
    shutil.rmtree(package)
    np.testing.assert_array_equal(opened.score([1, 2, 3]), before)


def test_weights_that_change_while_they_are_loaded_are_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, load = package / "weights.safetensors", open_graph.load_graph

    def replace_and_load(*arguments: object) -> object:
        other = weights.with_suffix(".new")
        shutil.copy2(weights, other)
        other.replace(weights)
        return load(*arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(open_graph, "load_graph", replace_and_load)
    with pytest.raises(
        PackageError, match=r"weights\.safetensors: changed .* found another file \(inode \d+\)"
    ):
        Session.open(package, threads=1)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_a_closed_session_lets_go_of_its_files(package: Path) -> None:
    def held() -> int:
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(package in link.parents for link in links)

    with Session.open(package, threads=1) as opened:
        assert held() == 1
        opened.score([1])
    assert held() == 0
    with pytest.raises(PackageError, match="cannot be read"):
        open_graph.WeightWatch([package / "weights.safetensors", package / "missing"])
    assert held() == 0


def test_weights_cut_off_do_not_kill_the_process(demo_package: Package, tmp_path: Path) -> None:
    """The whole model, in a process of its own, since it died of SIGBUS."""
    folder = Path(shutil.copytree(demo_package.folder, tmp_path / "package"))
    program = (
        "import os, sys; from gptoss_onnx.runtime import Session\n"
        "session = Session.open(sys.argv[1], threads=1); print(len(list(session.generate([1, 2], "
        "max_new_tokens=2))))\n"
        "os.truncate(sys.argv[1] + '/model.safetensors', 4096)\n"
        "try: list(session.generate([1, 2], max_new_tokens=2))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, error = done.stdout.splitlines()
    assert count == "2"
    assert error.startswith(
        f"PackageError {folder}/model.safetensors: changed while the session had it open: found "
        "4096"
    )


def test_a_package_of_many_tokens_is_looked_at_once_a_text(
    opened: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(opened._graph._weights, "check", lambda: looks.append(1))
    with opened.new_cache(1, 60) as cache:
        list(opened.generate([1, 2, 3], ENDLESS, max_new_tokens=20, cache=cache))
        assert len(looks) == 2  # the generation's own, and that of the empty cache
        opened.forward([[VOCAB - 1]], cache)
        assert len(looks) == 2
