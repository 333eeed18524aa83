"""A checkpoint by hub id: found in the cache as huggingface_hub lays it out, and downloaded only on
request.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from click.testing import CliRunner

from gptoss_onnx.checkpoint.locate import locate
from gptoss_onnx.cli import main
from gptoss_onnx.errors import CheckpointError, InputError, RuntimeUnavailable
from gptoss_onnx.extras import checkout_of, install_command
from support.tiny_package import tiny_checkpoint

NAME = "owner/name"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@pytest.fixture
def repository(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a cache: blobs, snapshots of links to them, and refs."""
    root = tmp_path / "hub" / "models--owner--name"
    (root / "blobs").mkdir(parents=True)
    for commit in (COMMIT, OTHER):
        snapshot = root / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in tiny_checkpoint(tmp_path_factory).iterdir():
            blob = root / "blobs" / f"{len(list((root / 'blobs').iterdir())):064x}"
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    (root / "refs" / "pr").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "refs" / "pr" / "1").write_text(OTHER)
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no name in the cache may lead to."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "config.json").write_text("what only the user may read")
    return folder


def found(repository: Path, **options: Any) -> Path:
    return locate(NAME, cache_dir=repository.parent, **options)


def refused(repository: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        found(repository, **options)
    text = str(caught.value)
    assert text.isprintable()
    return text


def test_a_revision_is_a_branch_a_pull_request_or_a_commit(repository: Path) -> None:
    assert found(repository) == repository / "snapshots" / COMMIT
    assert found(repository, revision="main") == repository / "snapshots" / COMMIT
    assert found(repository, revision="pr/1") == repository / "snapshots" / OTHER
    assert found(repository, revision=OTHER) == repository / "snapshots" / OTHER
    assert locate(repository) == repository / "snapshots" / COMMIT
    assert locate(repository, revision="pr/1") == repository / "snapshots" / OTHER


def test_what_the_cache_lacks_is_told_with_both_ways_to_get_it(repository: Path) -> None:
    with pytest.raises(CheckpointError, match=r"pass --download, or .*: hf download owner/other$"):
        locate("owner/other", cache_dir=repository.parent)
    assert refused(repository, revision="v2").endswith("hf download owner/name --revision v2")
    assert "found no such snapshot" in refused(repository, revision="a" * 40)


HOSTILE = (
    b"../../../outside",
    b"../../outside",
    b"/etc",
    b"..",
    b".",
    b"",
    b"a/b",
    b"x\x1b[2J",
    b"\xed\xa0\x80",
)


@pytest.mark.parametrize("content", HOSTILE)
def test_a_reference_names_a_snapshot_and_nothing_else(
    repository: Path, outside: Path, content: bytes
) -> None:
    (repository / "refs" / "main").write_bytes(content)
    assert "found no such snapshot" in refused(repository)
    with pytest.raises(CheckpointError, match="found no such snapshot"):
        locate(repository)


def test_links_in_a_cache_do_not_lead_out_of_it(repository: Path, outside: Path) -> None:
    (repository / "refs" / "main").unlink()
    (repository / "refs" / "main").symlink_to(outside / "config.json")
    text = refused(repository)
    assert "leads to" in text
    assert "only the user" not in text
    (repository / "refs" / "main").unlink()
    (repository / "refs" / "main").write_text("linked")
    (repository / "snapshots" / "linked").symlink_to(outside, target_is_directory=True)
    assert "leads to" in refused(repository)


@pytest.mark.timeout(60)
def test_a_reference_that_is_a_fifo_is_not_waited_for(repository: Path) -> None:
    (repository / "refs" / "main").unlink()
    os.mkfifo(repository / "refs" / "main")
    assert "found a FIFO, expected a regular file" in refused(repository)


@pytest.mark.parametrize("revision", ["../x", "a//b", "", "-x", "a\nb", "/etc"])
def test_a_revision_that_cannot_be_one(repository: Path, revision: str) -> None:
    with pytest.raises(InputError, match="expected a branch, a tag or a commit"):
        found(repository, revision=revision)


def test_a_folder_has_no_revision_and_no_download(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--revision: found with the folder"):
        locate(tmp_path, revision="main")
    with pytest.raises(InputError, match="--download: found with the folder"):
        locate(tmp_path, download=True)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "no-such-folder", "a/b/c", "-x/y", "ä/ö"])
def test_names_that_are_neither_folder_nor_hub_id(name: str) -> None:
    with pytest.raises(CheckpointError):
        locate(name)


# Downloads, which are a stand-in's here


class Hub:
    """Takes the place of `snapshot_download`, and remembers what it was asked."""

    def __init__(self, answer: Callable[[], str]) -> None:
        self.answer = answer
        self.asked: dict[str, Any] = {}

    def __call__(self, repo_id: str, **options: Any) -> str:
        self.asked = {"repo_id": repo_id, **options}
        return self.answer()


def test_nothing_is_downloaded_unless_asked_for(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(lambda: str(repository / "snapshots" / COMMIT))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    found(repository)
    assert hub.asked["local_files_only"] is True
    found(repository, download=True, revision="main")
    assert hub.asked["local_files_only"] is False
    assert hub.asked["revision"] == "main"


def test_only_what_an_export_reads_is_asked_for(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    hub = Hub(lambda: str(repository / "snapshots" / COMMIT))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    found(repository, download=True)
    files = [
        "config.json",
        "model-00000-of-00002.safetensors",
        "model.safetensors.index.json",
        "chat_template.jinja",
        "adapter_config.json",
        "original/model.safetensors",
        "original/config.json",
        "metal/model.bin",
        "consolidated.safetensors",
        "pytorch_model.bin",
        "README.md",
    ]
    patterns = {key: hub.asked[key] for key in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects(files, **patterns)) == files[:5]


def test_a_download_that_fails_is_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise ConnectionError("no route\nto the hub \x1b[2J")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(fail))
    assert "owner/name: cannot be downloaded (no route to the hub \\x1b[2J)" in refused(
        repository, download=True
    )


def test_a_partial_snapshot_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("The snapshot is incomplete")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(fail))
    text = refused(repository)
    assert "incomplete (The snapshot is incomplete); pass --download" in text


def test_what_the_hub_returns_lies_in_the_cache(
    repository: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(lambda: str(outside)))
    assert "leads to" in refused(repository, download=True)


# The command line


def test_export_and_validate_take_hub_ids(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(repository.parent))
    for arguments in (
        ("export", NAME, "--revision", "pr/1", "--output", str(tmp_path / "package")),
        ("validate", str(tmp_path / "package"), "--reference", NAME, "--revision", OTHER),
    ):
        result = CliRunner().invoke(main, arguments, prog_name="gptoss-onnx")
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "package" / "model.safetensors").samefile(
        repository / "snapshots" / OTHER / "model.safetensors"
    )


@pytest.mark.parametrize("command", ["export", "validate"])
@pytest.mark.parametrize("checkpoint", ["./nowhere", "owner/nowhere"])
def test_a_missing_checkpoint_is_told_before_torch_is_loaded(
    tmp_path: Path, command: str, checkpoint: str
) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
        "from gptoss_onnx.cli import main; main(prog_name='gptoss-onnx')"
    )
    arguments = {
        "export": ("export", checkpoint, "--output", str(tmp_path / "package")),
        "validate": ("validate", str(tmp_path / "package"), "--reference", checkpoint),
    }
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments[command]],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "no such folder" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_hub_id_without_huggingface_hub_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        RuntimeUnavailable, match=r"needs huggingface_hub, .*: pip install .*\[export\]"
    ):
        locate(NAME)


def test_the_hint_works_from_a_checkout_and_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkout"
    (root / "src" / "gptoss_onnx").mkdir(parents=True)
    file = root / "src" / "gptoss_onnx" / "extras.py"
    assert checkout_of(file) is None
    (root / "pyproject.toml").touch()
    assert checkout_of(file) == root
    assert checkout_of(tmp_path / "site-packages" / "gptoss_onnx" / "extras.py") is None
    monkeypatch.setattr("gptoss_onnx.extras.__file__", str(file))
    assert install_command("export") == f"pip install '{root}[export]'"
    monkeypatch.chdir(root)
    assert install_command("export") == "pip install '.[export]'"
    monkeypatch.setattr(
        "gptoss_onnx.extras.__file__", str(tmp_path / "site-packages" / "gptoss_onnx" / "extras.py")
    )
    assert install_command("cpu") == 'pip install "gptoss-onnx[cpu]"'
