"""Checkpoints and packages with one thing spoilt end in success, or in one line and exit 2, in time
and memory.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.exporter import export
from support.tiny_package import clone, tiny_checkpoint

FEW = {"checkpoint": 60, "package": 80}
MANY = {"checkpoint": 3000, "package": 1000}


def mutate(kind: str, source: Path, scratch: Path, first: int, count: int) -> dict[str, Any]:
    """Run the program of `mutations.run` and return what it says."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-m", "mutations.run", kind, source, scratch, first, count]
    done = subprocess.run(
        list(map(str, words)), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def whole_checkpoint(factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Return a checkpoint that has every kind of file that an export takes."""
    clone(tiny_checkpoint(factory), folder)
    (folder / "tokenizer_config.json").write_text(
        '{"eos_token": "<|end|>", "model_max_length": 100}'
    )
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
    return folder


def judge(
    kind: str, factory: pytest.TempPathFactory, scratch: Path, first: int, count: int
) -> None:
    source = whole_checkpoint(factory, scratch / "checkpoint")
    if kind == "package":
        source = export(source, scratch / "package", weights="copy").folder
    found = mutate(kind, source, scratch, first, count)
    assert found["wrong"] == []
    assert sum(found["ends"].values()) == count
    assert found["ends"]["exit 2"] > count / 5  # much of what is spoilt must be noticed


@pytest.mark.parametrize("kind", FEW)
def test_some(kind: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    judge(kind, tmp_path_factory, tmp_path, first=1_000_000, count=FEW[kind])


@pytest.mark.slow
@pytest.mark.mutations
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("kind", MANY)
def test_many(kind: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    judge(kind, tmp_path_factory, tmp_path, first=0, count=MANY[kind])
