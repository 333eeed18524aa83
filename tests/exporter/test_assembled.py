"""Weights that are no view of the checkpoint, stacked experts and decoded FP8, in every mode; and
experts that are several views.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter import export, separate_experts
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import ASSEMBLED, INT8_FILE
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.rounded import apply
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation import validate
from support.architecture_judge import Case
from support.fp8_checkpoint import write_fp8
from support.tolerances import PACKAGE_LOGITS
from support.transformers_models import Judged, write_by_transformers

STREAMING_LIMIT = 32 << 20  # bytes of memory, of which one parameter alone would take 134 MB
MOE = "model.layers.0.block_sparse_moe.experts"


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in several files, whose last has experts alone."""
    folder = tmp_path_factory.mktemp("mixtral")
    write_by_transformers("mixtral", {"num_hidden_layers": 1}, folder, sharded=True)
    return folder


@pytest.fixture(scope="module")
def fp8(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Qwen3-MoE in FP8, and decoded by transformers."""
    root = tmp_path_factory.mktemp("fp8")
    write_by_transformers("qwen3_moe", {"num_hidden_layers": 2}, root / "float32", sharded=False)
    write_fp8(root / "float32", root / "fp8", root / "decoded", (16, 32))
    return root / "fp8", root / "decoded"


@pytest.fixture
def too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the matrices of a small checkpoint for more than a graph can have."""
    monkeypatch.setattr(separate_experts, "MOST_MATRICES", 3 * 8 - 1)


@pytest.mark.parametrize("mode", ["link", "copy", "reference"])
def test_experts_stay_where_they_lie(mixtral: Path, tmp_path: Path, mode: Any) -> None:
    folder = tmp_path / "package"
    export(mixtral, folder, weights=mode)
    weights = Manifest.read(folder).weights
    places, values = _initializers(folder, mixtral if mode == "reference" else folder)
    for file in mixtral.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            assert places.pop(name) == file.name
            found = torch.from_numpy(values[name].view(np.int16)).view(torch.bfloat16)
            assert torch.equal(found, tensor), name
    assert not places
    assert weights.bit_identical
    assert {entry.origin for entry in weights.files} == {"checkpoint"}
    assert not (folder / ASSEMBLED).exists()
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    (mixture,) = (node for node in graph.node if node.op_type.startswith("MoE"))
    assert mixture.op_type == "MoEDispatchSeparate"
    matrices = [f"{MOE}.{e}.{name}.weight" for name in ("w1", "w3", "w2") for e in range(8)]
    assert list(mixture.input)[2:] == matrices


def test_a_referred_checkpoint_of_separate_experts_runs(mixtral: Path, tmp_path: Path) -> None:
    export(mixtral, tmp_path / "package", weights="reference")
    report = validate(tmp_path / "package", mixtral, kernels="native")
    assert report.passed, report.table()


@pytest.mark.usefixtures("too_many")
@pytest.mark.parametrize("mode", ["link", "copy"])
def test_experts_beyond_a_number_are_stacked_and_all_else_is_the_checkpoints(
    mixtral: Path, tmp_path: Path, mode: Any
) -> None:
    folder = tmp_path / "package"
    export(mixtral, folder, weights=mode)
    places, values = _initializers(folder)
    stored = {}
    for file in mixtral.glob("*.safetensors"):
        stored |= load_file(file)
    experts = {name for name in stored if name.startswith(MOE)}
    parts = {
        name: [stored[f"{MOE}.{e}.{name}.weight"] for e in range(8)] for name in ("w1", "w2", "w3")
    }
    gate_up = [torch.cat(pair) for pair in zip(parts["w1"], parts["w3"], strict=True)]
    stacked = {
        f"{MOE}.gate_up_proj": torch.stack(gate_up),
        f"{MOE}.down_proj": torch.stack(parts["w2"]),
    }
    expected = {name: stored[name] for name in stored.keys() - experts} | stacked
    assert values.keys() == expected.keys()
    for name, tensor in expected.items():
        found = torch.from_numpy(values[name].view(np.int16)).view(torch.bfloat16)
        assert torch.equal(found, tensor), name
    assembled = {name for name, place in places.items() if place == ASSEMBLED}
    assert assembled == (set(expected) if mode == "copy" else set(stacked))
    weights = Manifest.read(folder).weights
    assert weights.bit_identical
    assert {entry.name: entry.origin for entry in weights.files} == {
        place: "export" if place == ASSEMBLED else "checkpoint" for place in places.values()
    }
    files = {path.name for path in folder.glob("*.safetensors")}
    assert files == set(places.values()), "no file of which the graph uses nothing"


@pytest.mark.usefixtures("too_many")
def test_a_checkpoint_of_which_a_part_is_rewritten_cannot_be_referred_to(
    mixtral: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--weights reference: found FP8, GGUF, experts of"):
        export(mixtral, tmp_path / "package", weights="reference")
    assert not list(tmp_path.iterdir())


def test_validate_passes(mixtral: Path, tmp_path: Path) -> None:
    export(mixtral, tmp_path / "package")
    report = validate(tmp_path / "package", mixtral, kernels="native")
    assert report.passed, report.table()


def test_fp8_computes_what_transformers_decodes(fp8: tuple[Path, Path], tmp_path: Path) -> None:
    folder, decoded = fp8
    model = AutoModelForCausalLM.from_pretrained(decoded, dtype=torch.float32)
    case = Case(Judged(model.eval(), folder, model.config.vocab_size))
    case.check_package(tmp_path / "package", "portable", "auto")
    manifest = Manifest.read(tmp_path / "package")
    assert manifest.lossy == ("FP8 weights times their scales rounded to bfloat16",)
    assert not manifest.weights.bit_identical


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("llama", "q, k, v, o, gate, up, down and lm_head in int8 (block 32)"),
        ("gpt2", "qkv, o, up, down and lm_head in int8 (block 32)"),
        ("mixtral", "q, k, v, o and lm_head in int8 (block 32)"),
        ("bloom", "qkv, o, up, down and lm_head in int8 (block 32)"),
    ],
)
def test_every_projection_becomes_int8(model_type: str, words: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(model_type))
    export(tmp_path / "checkpoint", tmp_path / "package", dense="int8")
    assert Manifest.read(tmp_path / "package").lossy == (words,)
    _check_rounded(tmp_path / "checkpoint", tmp_path / "package")


def test_int8_of_fp8_rounds_what_was_decoded(fp8: tuple[Path, Path], tmp_path: Path) -> None:
    export(fp8[0], tmp_path / "package", dense="int8")
    lossy = Manifest.read(tmp_path / "package").lossy
    assert [words.split()[0] for words in lossy] == ["FP8", "q,"]
    places, _ = _initializers(tmp_path / "package")
    assert set(places.values()) == {"model.safetensors", ASSEMBLED, INT8_FILE}
    _check_rounded(fp8[0], tmp_path / "package")


def test_a_file_of_the_checkpoint_is_not_written_over(
    fp8: tuple[Path, Path], tmp_path: Path
) -> None:
    name, index = ASSEMBLED, "model.safetensors.index.json"
    (tmp_path / name).write_bytes((fp8[0] / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_bytes((fp8[0] / "config.json").read_bytes())
    weight_map = dict.fromkeys(load_file(tmp_path / name), name)
    (tmp_path / index).write_text(json.dumps({"weight_map": weight_map}))
    before = (tmp_path / name).read_bytes()
    with pytest.raises(PackageError, match="the checkpoint has a file of this name"):
        export(tmp_path, tmp_path / "package")
    assert (tmp_path / name).read_bytes() == before


def test_stacking_streams(tmp_path: Path) -> None:
    """200 MB of experts are put together in a few MB of anonymous memory."""
    sizes = {"num_hidden_layers": 1, "hidden_size": 1024, "intermediate_size": 4096}
    make_checkpoint(tmp_path / "checkpoint", tiny_document("mixtral", **sizes), sparse=True)
    code = """
import sys
from pathlib import Path
from gptoss_onnx.reference.checkpoint import Checkpoint
from gptoss_onnx.exporter import export

def anonymous():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

first, peak = None, 0
read_rows = Checkpoint.read_rows
def watched(*arguments):
    global first, peak
    first = first or anonymous()
    peak = max(peak, anonymous())
    return read_rows(*arguments)

Checkpoint.read_rows = watched
from gptoss_onnx.exporter import export_package, separate_experts
separate_experts.MOST_MATRICES = 0
export_package._write_golden_if_small = lambda *_: None
export(Path(sys.argv[1]), Path(sys.argv[2]))
print(peak - first)
"""
    paths = [str(tmp_path / "checkpoint"), str(tmp_path / "package")]
    command = [sys.executable, "-c", code, *paths]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(result.stdout) < STREAMING_LIMIT, result.stdout
    assert (tmp_path / "package" / ASSEMBLED).stat().st_size > 190 << 20


def _initializers(
    folder: Path, root: Path | None = None
) -> tuple[dict[str, str], Mapping[str, np.ndarray[Any, Any]]]:
    """Return the file and the value of every initializer that lies outside the graph; `root` is
    where the files are if it is not the package.
    """
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    places, values = {}, {}
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            places[tensor.name] = entries["location"]
            begin, size = int(entries["offset"]), int(entries["length"])
            content = ((root or folder) / entries["location"]).read_bytes()[begin : begin + size]
            tensor.raw_data, tensor.data_location = content, onnx.TensorProto.DEFAULT
            values[tensor.name] = onnx.numpy_helper.to_array(tensor)
    return places, values


def _check_rounded(checkpoint: Path, folder: Path) -> None:
    """Compare a package with the reference that has the package's rounded weights."""
    tokens = list(range(3, 40))
    with open_checkpoint(checkpoint) as opened:
        model = apply(Decoder.from_checkpoint(opened), folder, Manifest.read(folder).rounded)
        expected = model.score(tokens)
    with Session.open(folder, kernels="portable", threads=1) as session:
        found = session.score(tokens)
    np.testing.assert_allclose(found, expected, rtol=0, atol=PACKAGE_LOGITS)
