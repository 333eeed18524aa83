"""Exports write the same bytes again: in other processes, with other hash seeds, on other numbers
of threads.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_onnx.choices import ExpertForm
from gptoss_onnx.exporter import export, planned
from gptoss_onnx.exporter.trace import trace
from gptoss_onnx.package import EXPERT_CHECK_FILE, INT8_FILE, ORT_WEIGHTS

# One trace a process: what `--dense int8` does to it comes after.
EXPORT = """
import sys
from pathlib import Path
import torch
from gptoss_onnx.exporter import export
from support.made_once import made_once

checkpoint, folder, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
with made_once(Path(folder) / "made-once"):
    export(checkpoint, Path(folder) / "plain")
    export(checkpoint, Path(folder) / "int8", dense="int8")
"""


@pytest.fixture(scope="module")
def folders(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny checkpoint exported by two processes with unlike hash seeds, one of them on two
    threads.
    """
    found = []
    for seed in ("1", "2"):
        folder = tmp_path_factory.mktemp(f"seed-{seed}")
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        command = [sys.executable, "-c", EXPORT, str(tiny_checkpoint), str(folder), seed]
        subprocess.run(command, check=True, env=environment)
        found.append(folder)
    return found


@pytest.mark.parametrize("name", ["plain/model.onnx", "int8/model.onnx", f"int8/{INT8_FILE}"])
def test_export_is_byte_identical_across_processes(folders: list[Path], name: str) -> None:
    first, second = (folder / name for folder in folders)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("experts", "file"), [("checkpoint", EXPERT_CHECK_FILE), ("int8", ORT_WEIGHTS)]
)
def test_another_trace_of_target_ort_is_the_same(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    experts: ExpertForm,
    file: str,
) -> None:
    """The first trace may be one that this test run has kept, the second is made here."""
    first = export(tiny_checkpoint, tmp_path / "first", target="ort", experts=experts)
    monkeypatch.setattr(planned, "trace", trace)
    again = export(tiny_checkpoint, tmp_path / "again", target="ort", experts=experts)
    for name in ("model.onnx", file, "genai_config.json"):
        assert (again.folder / name).read_bytes() == (first.folder / name).read_bytes()
