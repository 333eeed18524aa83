"""`--weights copy` shares blocks with the checkpoint's files where the file system can."""

import os
from pathlib import Path

import pytest

from gptoss_onnx.exporter import export


def test_a_copy_shares_its_blocks_where_the_file_system_can(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Btrfs and XFS can; here a stand-in writes what the clone would hold."""
    cloned = []

    def clone(target: int, request: int, source: int) -> int:
        assert request == 0x40049409
        os.pwrite(target, os.pread(source, os.fstat(source).st_size, 0), 0)
        cloned.append(target)
        return 0

    monkeypatch.setattr("fcntl.ioctl", clone)
    package = export(tiny_checkpoint, tmp_path / "package", weights="copy")
    assert len(cloned) == 1
    name = "model.safetensors"
    assert (package.folder / name).read_bytes() == (tiny_checkpoint / name).read_bytes()
