"""Export is interrupted: what is left opens as the old package, as the new one, or not at all."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter import export, staging
from gptoss_onnx.exporter.staging import staged_folder
from gptoss_onnx.manifest import MANIFEST_NAME, STAGING_SUFFIX
from gptoss_onnx.runtime import Session
from support import export_forks
from support.one_run import run_folder

KILLS = 25


def opens(folder: Path) -> bool:
    try:
        with Session.open(folder, threads=1) as session:
            return session.score([1, 2]).shape[0] == 2
    except PackageError:
        return False


@dataclass
class Forks:
    """The program of `export_forks`, with how long one undisturbed export takes."""

    process: "subprocess.Popen[str]"
    seconds: float

    def export(self, output: Path, kill_after: float | None = None) -> None:
        """Export to `output`; kill it after so many seconds."""
        self.process.stdin.write(f"{output}\n")
        self.process.stdin.flush()
        fork = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(fork, signal.SIGKILL)
        assert self.process.stdout.readline() == "ended\n"


@pytest.fixture(scope="module")
def forks(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    folders = (
        tiny_checkpoint,
        run_folder(tmp_path_factory) / "made-once",
        tmp_path_factory.mktemp("forks"),
    )
    command = [sys.executable, export_forks.__file__, *map(str, folders)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        word, seconds = process.stdout.readline().split()
        assert word == "ready"
        yield Forks(process, float(seconds))
        process.stdin.close()


def test_kill_at_random_moments_leaves_nothing_that_opens(forks: Forks, tmp_path: Path) -> None:
    moments, finished = random.Random(1), 0
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        folder.mkdir()
        forks.export(folder / "package", kill_after=moments.uniform(0, forks.seconds))
        left = list(folder.iterdir())
        assert all(path.name == "package" or path.name.endswith(STAGING_SUFFIX) for path in left)
        if (folder / "package").exists():
            finished += 1
            assert opens(folder / "package")
        assert not any(opens(path) for path in left if path.name != "package")
    assert finished < KILLS, "no kill came in time; the test has shown nothing"


def test_kill_while_replacing_leaves_the_old_or_the_new(forks: Forks, tmp_path: Path) -> None:
    output = tmp_path / "package"
    forks.export(output)
    assert opens(output)
    moments = random.Random(2)
    for _ in range(KILLS):
        forks.export(output, kill_after=moments.uniform(0, 1.2 * forks.seconds))
        assert opens(output)


def test_a_finished_staging_folder_is_no_package(forks: Forks, tmp_path: Path) -> None:
    """The moment between the manifest and the rename: everything is there, and still it does not
    open.
    """
    output = tmp_path / "package"
    forks.export(output)
    unfinished = output.rename(tmp_path / f".package.abc{STAGING_SUFFIX}")
    with pytest.raises(PackageError, match="unfinished work"):
        Session.open(unfinished)


@pytest.mark.parametrize("exchange", [True, False])
def test_replacing_swaps_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    """With the atomic exchange, and where the system has none."""
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    output = tmp_path / "package"
    for content in ("old", "new"):
        with staged_folder(output, force=True) as folder:
            (folder / MANIFEST_NAME).write_text(content)
    assert (output / MANIFEST_NAME).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, PackageError, OSError])
def test_a_failure_leaves_the_old_package_and_no_litter(
    tmp_path: Path, error: type[BaseException]
) -> None:
    output = tmp_path / "package"
    with staged_folder(output, force=False) as folder:
        (folder / MANIFEST_NAME).write_text("old")
    expected = PackageError if error is OSError else error
    with pytest.raises(expected), staged_folder(output, force=True) as folder:
        (folder / MANIFEST_NAME).write_text("new")
        raise error("in the middle")
    assert (output / MANIFEST_NAME).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_link_refused_names_the_options_that_remain(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(
        PackageError, match=r"cannot hard-link .*--weights reference, or --weights copy"
    ):
        export(tiny_checkpoint, tmp_path / "package")
    assert not list(tmp_path.iterdir())


def test_copy_refused_when_the_disk_is_too_small(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PackageError, match=r"copying the weights needs .* are free"):
        export(tiny_checkpoint, tmp_path / "package", weights="copy")
    assert not list(tmp_path.iterdir())
