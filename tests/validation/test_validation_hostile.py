"""`validate` reads what a stranger's package and a client say: it ends in a verdict or in one line
of ours.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter import Package
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.dense_int8 import use_dense_int8
from gptoss_onnx.reference.experts_int4 import use_experts_int4
from gptoss_onnx.validation import Report, validate
from gptoss_onnx.validation.columns import clients
from gptoss_onnx.validation.golden_file import LONGEST, read_golden

HUGE = b"[" * 100_000


@pytest.fixture
def package(tiny_package: Package, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_package.folder, tmp_path / "package")


def golden_of(package: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((package / "golden" / "golden.json").read_text())
    return document


def vocabulary(tiny_package: Package) -> int:
    size: int = tiny_package.manifest.model["vocab_size"]
    return size


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda golden: golden["cases"][0].__setitem__(key, value)


GOLDEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "no cases": lambda golden: golden.pop("cases"),
    "an empty list of cases": lambda golden: golden.update(cases=[]),
    "cases that are numbers": lambda golden: golden.update(cases=[1]),
    "more cases than an export writes": lambda golden: golden.update(
        cases=golden["cases"][1:2] * 65
    ),
    "cases of one name": lambda golden: golden.update(cases=golden["cases"][:1] * 2),
    "no name": lambda golden: golden["cases"][0].pop("name"),
    "indices beyond the vocabulary": lambda golden: golden.update(sampled_indices=[10**6]),
    "negative indices": lambda golden: golden.update(sampled_indices=[-1]),
    "booleans for tokens": _set("token_ids", [True]),
    "no tokens": _set("token_ids", []),
    "tokens beyond the vocabulary": _set("token_ids", [10**6]),
    "more tokens than the reference should run": _set("token_ids", [1] * (LONGEST + 1)),
    "positions beyond the tokens": _set("positions", [10**6]),
    "negative positions": _set("positions", [-1]),
    "no positions": _set("positions", []),
    "a position too many": lambda golden: golden["cases"][0]["positions"].append(0),
    "ragged rows": lambda golden: golden["cases"][0]["top_logits"][0].append(0.0),
    "a row too many": lambda golden: golden["cases"][0]["top_indices"].append([0]),
    "empty rows": _set("top_indices", [[]]),
    "strings for logits": _set("sampled_logits", [["1.0"]]),
    "a text for a list": _set("greedy", "abc"),
    "nothing for a list": _set("greedy", None),
}


@pytest.mark.parametrize("spoil", GOLDEN.values(), ids=GOLDEN.keys())
def test_golden_vectors_that_are_none(
    package: Path, tiny_package: Package, spoil: Callable[[dict[str, Any]], object]
) -> None:
    golden = golden_of(package)
    spoil(golden)
    (package / "golden" / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(
        PackageError, match=r"golden\.json: .*; delete the folder and write it with --write-golden"
    ):
        read_golden(package, vocabulary(tiny_package))


@pytest.mark.parametrize("content", [b"", b"[]", HUGE, b'{"cases": NaN}', b"\xff"])
def test_golden_files_that_are_not_json(
    package: Path, tiny_package: Package, content: bytes
) -> None:
    (package / "golden" / "golden.json").write_bytes(content)
    with pytest.raises(PackageError, match=r"golden\.json"):
        read_golden(package, vocabulary(tiny_package))


def test_a_golden_file_is_not_read_elsewhere(
    package: Path, tiny_package: Package, tmp_path: Path
) -> None:
    path = package / "golden" / "golden.json"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageError, match="found a link to"):
        read_golden(package, vocabulary(tiny_package))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PackageError, match="found a FIFO"):
        read_golden(package, vocabulary(tiny_package))


VERDICTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no cases": lambda verdict: verdict.pop("cases"),
    "cases in an object": lambda verdict: verdict.update(cases={"name": 1}),
    "cases that are numbers": lambda verdict: verdict.update(cases=[1, 2]),
    "no kernels": lambda verdict: verdict.pop("kernels"),
    "a case without numbers": lambda verdict: verdict["cases"][0].pop("greedy_equal"),
    "a case with texts for numbers": lambda verdict: verdict["cases"][0].update(positions="24"),
}


def run_client(tmp_path: Path, package: Path, checkpoint: Path, output: bytes) -> Report:
    script = tmp_path / "client.py"
    script.write_text(f"import sys\nsys.stdout.buffer.write({output!r})\n")
    command = f"{sys.executable} {script}"
    return validate(package, checkpoint, runtimes=["cpp"], clients={"cpp": command})


@pytest.mark.parametrize("spoil", VERDICTS.values(), ids=VERDICTS.keys())
def test_verdicts_that_are_none(
    package: Path, tiny_checkpoint: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], object]
) -> None:
    cases = [
        {"name": case["name"], "greedy_equal": 64, "positions": 1}
        for case in golden_of(package)["cases"]
    ]
    verdict: dict[str, Any] = {"format": "gptoss-onnx-verdict", "format_version": 1, "cases": cases}
    verdict |= {"runtime": "x", "kernels": "native", "activations": "exact"}
    spoil(verdict)
    report = run_client(tmp_path, package, tiny_checkpoint, json.dumps(verdict).encode())
    assert report.exit_code == 1
    assert all(cell.note.isprintable() for cell in report.cells)


@pytest.mark.parametrize(
    "output", [HUGE, b"\xff\xfe", b'{"format": 1e999}'], ids=["deep", "bytes", "huge number"]
)
def test_output_that_is_no_json(
    package: Path, tiny_checkpoint: Path, tmp_path: Path, output: bytes
) -> None:
    report = run_client(tmp_path, package, tiny_checkpoint, output)
    assert "found no gptoss-onnx-verdict document" in report.cell("load").note


def test_a_client_that_takes_too_long(
    package: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "TIMEOUT", 0.1)
    command = f"{sys.executable} -c 'import time; time.sleep(30)'"
    report = validate(package, tiny_checkpoint, runtimes=["cpp"], clients={"cpp": command})
    assert report.cell("load").note == "no answer after 0.1 s"


# Weights of the package's own, which a stranger has written

WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "none": lambda stored: stored.clear(),
    "of another type": lambda stored: stored.update(
        {
            name: tensor.float()
            for name, tensor in stored.items()
            if name.endswith(("_int8", "_int4"))
        }
    ),
    "of another shape": lambda stored: stored.update(
        {name: tensor[1:] for name, tensor in stored.items()}
    ),
    "without scales": lambda stored: [
        stored.pop(name) for name in list(stored) if name.endswith("_scales")
    ],
}


@pytest.mark.parametrize("spoil", WEIGHTS.values(), ids=WEIGHTS.keys())
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_own_weights_that_are_not_of_this_model(
    tiny_checkpoint: Path,
    tmp_path: Path,
    kind: str,
    spoil: Callable[[dict[str, torch.Tensor]], object],
) -> None:
    with open_checkpoint(tiny_checkpoint) as checkpoint:
        model = Decoder.from_checkpoint(checkpoint)
        names = list(checkpoint.tensors)
    stored = _int8(model) if kind == "int8" else _int4(model, names)
    use = use_dense_int8 if kind == "int8" else use_experts_int4
    save_file(stored, tmp_path / "good")
    spoil(stored)
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, tmp_path / "spoilt")
    with pytest.raises(PackageError, match=r"spoilt: .*export the package again"):
        use(model, tmp_path / "spoilt")
    (tmp_path / "no safetensors").write_bytes(b"x" * 100)
    with pytest.raises(PackageError, match="cannot be read"):
        use(model, tmp_path / "no safetensors")
    assert load_file(tmp_path / "good").keys()
    use(model, tmp_path / "good")


def _int8(model: Decoder) -> dict[str, torch.Tensor]:
    name = "model.layers.0.self_attn.q_proj"
    rows, depth = model.get_submodule(name).weight.shape
    return {
        f"{name}.weight_int8": torch.zeros(rows, depth, dtype=torch.int8),
        f"{name}.weight_scales": torch.ones(rows, depth // 32),
    }


def _int4(model: Decoder, names: list[str]) -> dict[str, torch.Tensor]:
    stored = {}
    for name in names:
        if name.endswith("_blocks"):
            stem = name.removesuffix("_blocks")
            count, rows, blocks, width = model.get_parameter(name).shape
            stored[f"{stem}_int4"] = torch.zeros(count, rows, blocks * width, dtype=torch.uint8)
            stored[f"{stem}_int4_scales"] = torch.ones(count, rows, blocks)
    return stored
