"""The shapes of gpt-oss-20b and gpt-oss-120b: sparse checkpoints of full size exported, slices of
two layers run.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.synthetic import make_checkpoint, preset_document
from gptoss_onnx.runtime import Session

pytestmark = pytest.mark.slow

PEAK_BYTES = 1 << 30
MEASURE = """
import json, sys, time
from pathlib import Path
begin = time.perf_counter()
from gptoss_onnx.exporter import export
package = export(sys.argv[1], sys.argv[2])
# not ru_maxrss, which begins with the memory of the process that started this one
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
print(json.dumps({"seconds": time.perf_counter() - begin, "peak": peak}))
"""


@pytest.mark.parametrize("name", ["20b", "120b"])
def test_full_size_exports_in_little_memory_and_copies_nothing(tmp_path: Path, name: str) -> None:
    """The time is printed, not judged: see `pytest -rP`."""
    make_checkpoint(tmp_path / "checkpoint", preset_document(name), sparse=True)
    command = [
        sys.executable,
        "-c",
        MEASURE,
        str(tmp_path / "checkpoint"),
        str(tmp_path / "package"),
    ]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"{name}: {found['seconds']:.1f} s from a cold start, peak {found['peak'] / 2**20:.0f} MiB"
    )
    assert found["peak"] < PEAK_BYTES
    weights = list((tmp_path / "package").glob("*.safetensors"))
    assert all(path.samefile(tmp_path / "checkpoint" / path.name) for path in weights)
    own = [
        path
        for path in (tmp_path / "package").rglob("*")
        if path.is_file() and path.stat().st_nlink == 1
    ]
    assert sum(path.stat().st_size for path in own) < 5_000_000


@pytest.mark.parametrize("name", ["20b", "120b"])
def test_slice_of_two_layers_takes_a_decode_step(tmp_path: Path, name: str) -> None:
    document = preset_document(name, layers=2)
    make_checkpoint(tmp_path / "checkpoint", document, sparse=True)
    export(tmp_path / "checkpoint", tmp_path / "package")
    with Session.open(tmp_path / "package") as session, session.new_cache(1, 16) as cache:
        session.forward([[1, 2, 3]], cache)
        logits = session.forward([[4]], cache)
    assert logits.shape == (1, 1, document["vocab_size"])
    assert (logits == 0).all()  # a sparse checkpoint is zeros


def test_openais_layout_of_full_size_is_linked(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "original", preset_document("20b"), layout="openai", sparse=True)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "original"), str(tmp_path / "package")]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"original/ of 20b: {found['seconds']:.1f} s, peak {found['peak'] / 2**20:.0f} MiB")
    assert found["peak"] < PEAK_BYTES
    weights = list((tmp_path / "package").glob("*.safetensors"))
    assert len(weights) == len(list((tmp_path / "original").glob("*.safetensors")))
    assert all(path.samefile(tmp_path / "original" / path.name) for path in weights)
