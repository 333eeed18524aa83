"""Every weight of a package is compared with the checkpoint's, or with what is to be made of it."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.package import ASSEMBLED, INT8_FILE, ORT_WEIGHTS
from gptoss_onnx.reference.dense_int8 import int8_names
from gptoss_onnx.reference.experts_int4 import int4_names
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.compared import compared, edit_graph, edit_manifest, entry, findings, initializer
from support.fp8_checkpoint import write_fp8

SINGLE = "model.safetensors"
EMBEDDING = "model.embed_tokens.weight"
BLOCKS = "model.layers.1.mlp.experts.down_proj_blocks"


def place(path: Path, name: str) -> tuple[int, tuple[int, ...]]:
    """Return where a tensor begins in a safetensors file, and its shape."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    info = json.loads(content[8 : 8 + length])[name]
    return 8 + length + info["data_offsets"][0], tuple(info["shape"])


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1 << bit]))


@pytest.fixture
def copied(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A package with weights of its own."""
    return export(tiny_checkpoint, tmp_path / "package", weights="copy").folder


def test_linked_files_are_compared_by_their_places(
    tiny_package: Package, tiny_checkpoint: Path
) -> None:
    comparison = compared(tiny_package.folder, tiny_checkpoint)["weights"]
    assert comparison.state == "passed"
    assert "lie in the reference's own files" in comparison.note


def test_a_bit_of_one_rare_tokens_row_is_found(copied: Path, tiny_checkpoint: Path) -> None:
    begin, (_, width) = place(copied / SINGLE, EMBEDDING)
    flip(copied / SINGLE, begin + (37 * width + 5) * 2 + 1, bit=7)  # the sign of a bfloat16
    (finding,) = findings(copied, tiny_checkpoint, "weights")
    assert finding.where == "embed_tokens.Gather"
    assert finding.what == f"row 37, column 5 of {EMBEDDING}"
    assert float(finding.found) == -float(finding.expected)


def test_several_elements_are_one_finding(copied: Path, tiny_checkpoint: Path) -> None:
    begin, shape = place(copied / SINGLE, BLOCKS)
    for byte in (3, 700, 701):
        flip(copied / SINGLE, begin + byte, bit=1)
    (finding,) = findings(copied, tiny_checkpoint, "weights")
    assert finding.where == "layers.1 MoEDispatchMXFP4"
    assert finding.what == f"element [0, 0, 0, 3] of {BLOCKS}, and 2 elements more"
    assert finding.found.startswith("0x") and finding.found != finding.expected
    assert len(shape) == 4


def test_another_checkpoint_of_that_shape_is_found_in_part(
    copied: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "other", tiny_document(), seed=12)
    comparison = compared(copied, tmp_path / "other")["weights"]
    assert len(comparison.findings) == 20
    assert "of which the first 20 are listed" in comparison.note
    assert not findings(copied, tmp_path / "other", "graph")
    assert not findings(copied, tiny_checkpoint, "weights")


def test_a_checkpoint_may_be_split_into_other_files(copied: Path, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "split", tiny_document(), seed=11, shard_bytes=1 << 17)
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 1
    for comparison in compared(copied, tmp_path / "split").values():
        assert comparison.state == "passed", comparison


def test_the_range_of_another_layer_is_named(copied: Path, tiny_checkpoint: Path) -> None:
    other = BLOCKS.replace("layers.1", "layers.2")

    def move(model: Any) -> None:
        source = entry(initializer(model, other), "offset").value
        entry(initializer(model, BLOCKS), "offset").value = source

    edit_graph(copied, move)
    found = compared(copied, tiny_checkpoint)
    (finding,) = found["graph"].findings
    assert finding.where == "layers.1 MoEDispatchMXFP4"
    assert finding.what == f"{BLOCKS}: byte range"
    assert finding.found.startswith(other) and finding.expected.startswith(BLOCKS)
    (finding,) = found["weights"].findings
    assert finding.what.startswith(f"element [0, 0, 0, 0] of {BLOCKS}, and ")


def test_a_range_that_is_shifted_by_a_row_is_named(copied: Path, tiny_checkpoint: Path) -> None:
    _, (_, width) = place(copied / SINGLE, EMBEDDING)

    def shift(model: Any) -> None:
        offset = entry(initializer(model, EMBEDDING), "offset")
        offset.value = str(int(offset.value) - 2 * width)

    edit_graph(copied, shift)
    found = compared(copied, tiny_checkpoint)
    (finding,) = found["graph"].findings
    assert (finding.where, finding.what) == ("embed_tokens.Gather", f"{EMBEDDING}: byte range")
    assert finding.found.startswith("no whole tensor")
    assert found["weights"].findings[0].what.startswith(f"row 0, column 0 of {EMBEDDING}")


EXPERTS = "model.layers.0.mlp.experts.down_proj"
# What is exported → which file and tensor is spoilt, and the op that reads it.
COMPUTED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "an int8 scale": (
        {"dense": "int8"},
        INT8_FILE,
        int8_names("model.layers.2.self_attn.o_proj")[1],
        "layers.2 self_attn.o_proj.LinearInt8",
    ),
    "a widened projection": (
        {"target": "ort"},
        ORT_WEIGHTS,
        "model.layers.1.self_attn.q_proj.weight_float32",
        "layers.1 self_attn.q_proj.Gemm",
    ),
    "an int8 expert": (
        {"target": "ort", "experts": "int8"},
        ORT_WEIGHTS,
        f"{EXPERTS}_uint8",
        "layers.0 QMoE",
    ),
    "the scale of an int4 expert": (
        {"target": "ort", "experts": "int4"},
        ORT_WEIGHTS,
        int4_names(EXPERTS)[1],
        "layers.0 QMoE",
    ),
    "an expert for CUDA": (
        {"target": "ort", "provider": "cuda"},
        ORT_WEIGHTS,
        f"{EXPERTS}_blocks_by_column",
        "layers.0 QMoE",
    ),
}


@pytest.mark.parametrize("kind", COMPUTED)
def test_computed_weights_are_computed_again(
    kind: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    options, file, tensor, where = COMPUTED[kind]
    folder = export(tiny_checkpoint, tmp_path / "package", **options).folder
    begin, _ = place(folder / file, tensor)
    flip(folder / file, begin + 6)
    (finding,) = findings(folder, tiny_checkpoint, "weights")
    assert finding.where == where
    assert finding.what.endswith(f" of {tensor}")
    assert finding.found != finding.expected


def test_fp8_is_decoded_again(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "plain", tiny_document("qwen3_moe", layers=2))
    write_fp8(tmp_path / "plain", tmp_path / "fp8", tmp_path / "decoded", (16, 16))
    folder = export(tmp_path / "fp8", tmp_path / "package").folder
    assert not findings(folder, tmp_path / "fp8", "graph")
    assert not findings(folder, tmp_path / "fp8", "weights")
    flip(folder / ASSEMBLED, (folder / ASSEMBLED).stat().st_size - 1)
    (finding,) = findings(folder, tmp_path / "fp8", "weights")
    assert finding.where.startswith("layers.")


def test_a_file_that_becomes_shorter_is_refused(copied: Path, tiny_checkpoint: Path) -> None:
    with (copied / SINGLE).open("r+b") as file:
        file.truncate((copied / SINGLE).stat().st_size - 1000)
    with pytest.raises(PackageError, match="the file has become shorter"):
        compared(copied, tiny_checkpoint)


def test_without_a_record_of_options_target_ort_is_not_compared(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = export(tiny_checkpoint, tmp_path / "package", target="ort").folder
    edit_manifest(folder, lambda document: document.pop("options"))
    for comparison in compared(folder, tiny_checkpoint).values():
        assert comparison.state == "not available"
        assert comparison.note.endswith("export again")


def test_without_a_record_of_options_target_portable_says_them(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = export(tiny_checkpoint, tmp_path / "package", dense="int8").folder
    edit_manifest(folder, lambda document: document.pop("options"))
    for comparison in compared(folder, tiny_checkpoint).values():
        assert comparison.state == "passed", comparison
