"""The C++ client on packages with one thing spoilt, chosen by a seed: success or one line, in time
and memory.

MUTATIONS=3000 MUTATION_SEED=7 pytest -m clients tests/clients/test_cpp_mutations.py tries more, and
others.
"""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from gptoss_onnx.exporter import export, golden
from mutations.mutate import spoil
from support.cpp_client import Client, Limits, Result
from support.tiny_package import tiny_checkpoint

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

COUNT = int(os.environ.get("MUTATIONS", "200"))
FIRST = int(os.environ.get("MUTATION_SEED", "0"))
WAYS = (
    ("--verify",),
    ("--verify", "--json"),
    ("--prompt-tokens", "1,2,3", "--max-new-tokens", "4"),
)


@pytest.fixture
def package(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A tiny package with every file that the client reads, and no other."""
    monkeypatch.setattr(golden, "GREEDY_TOKENS", 4)  # what is proved here is not the golden vectors
    monkeypatch.setattr(golden, "LONGEST", 20)
    checkpoint = Path(shutil.copytree(tiny_checkpoint(tmp_path_factory), tmp_path / "checkpoint"))
    (checkpoint / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
    for name in ("tokenizer.json", "chat_template.jinja"):
        (checkpoint / name).unlink()
    return export(checkpoint, tmp_path / "package", weights="copy").folder


def problem(result: Result, way: tuple[str, ...]) -> str:
    """Say what is wrong with a run; empty where nothing is."""
    if result.code == 0 or (result.code == 1 and "--verify" in way):
        return ""
    if result.code != 2:
        return f"exit {result.code}"
    lines = result.err.splitlines()
    if (
        len(lines) != 1
        or not lines[0].startswith("gptoss-generate: ")
        or not lines[0].isprintable()
    ):
        return f"not one line: {result.err[:300]!r}"
    return "" if len(lines[0]) < 2000 else "a line without end"


@pytest.mark.timeout(3600)
def test_spoilt_packages(client: Client, package: Path, tmp_path: Path) -> None:
    assert [client.run(package, *way, limits=Limits()).code for way in WAYS] == [0, 0, 0]
    folder = tmp_path / "spoilt"
    ends: Counter[int] = Counter()
    wrong: list[str] = []
    for seed in range(FIRST, FIRST + COUNT):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(package, folder)
        done = spoil(folder, seed)
        way = WAYS[seed % len(WAYS)]
        # raises where it takes longer than it may
        result = client.run(folder, *way, limits=Limits())
        ends[result.code] += 1
        if found := problem(result, way):
            wrong.append(f"seed {seed}: {done} ({' '.join(way)}): {found}")
    assert wrong == []
    assert ends[2] > COUNT / 3  # much of what is spoilt must be noticed
    assert ends[0] > 0
