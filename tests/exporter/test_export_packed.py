"""`export --dense packed`: the file holds the checkpoint's weights bit for bit, and the graph
multiplies with them; what it refuses or leaves alone.
"""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.custom_ops.linear_packed import Packed, unpack
from gptoss_onnx.errors import InputError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.package import PACKED_FILE
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation import validate
from support.exported import valid_manifest, weight_files
from support.native_levels import needs_native
from support.packed_inputs import PARTS

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.fixture(scope="module")
def package(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    checkpoint = shutil.copytree(demo_checkpoint, tmp_path_factory.mktemp("packed") / "checkpoint")
    return export(checkpoint, checkpoint.parent / "package", dense="packed")


def projections_of(package: Package) -> list[str]:
    layers = len(package.manifest.cache)
    found = [f"model.layers.{i}.self_attn.{name}" for i in range(layers) for name in PROJECTIONS]
    return [*found, "lm_head"]


def unpacked(stored: dict[str, torch.Tensor], projection: str) -> torch.Tensor:
    return unpack(Packed(*(stored[f"{projection}.weight_{part}"] for part in PARTS)))


def test_the_file_holds_the_checkpoints_weights_bit_for_bit(
    package: Package, demo_checkpoint: Path
) -> None:
    """Read by safetensors' own reader."""
    source = load_file(demo_checkpoint / "model.safetensors")
    stored = load_file(package.folder / PACKED_FILE)
    names = projections_of(package)
    assert set(stored) == {f"{name}.weight_{part}" for name in names for part in PARTS}
    for name in names:
        weight = source[f"{name}.weight"]
        assert torch.equal(unpacked(stored, name).view(torch.int16), weight.view(torch.int16))


def test_a_quarter_of_the_bytes_is_saved(package: Package, demo_checkpoint: Path) -> None:
    source = load_file(demo_checkpoint / "model.safetensors")
    whole = sum(source[f"{name}.weight"].nbytes for name in projections_of(package))
    packed = sum(x.nbytes for x in load_file(package.folder / PACKED_FILE).values())
    assert 0.75 * whole < packed < 0.76 * whole


def test_the_graph_multiplies_with_the_new_file(package: Package) -> None:
    graph = onnx.load(package.folder / "model.onnx", load_external_data=False)
    nodes = {
        op: [node for node in graph.graph.node if node.op_type == op]
        for op in ("Linear", "LinearPacked")
    }
    layers = len(package.manifest.cache)
    assert [node.name.rsplit(".", 2)[1] for node in nodes["Linear"]] == ["router"] * layers
    assert len(nodes["LinearPacked"]) == 4 * layers + 1
    files = weight_files(graph)
    ours = {name for node in nodes["LinearPacked"] for name in node.input[1:6]}
    assert {name for name, file in files.items() if file == PACKED_FILE} == ours
    assert not any("self_attn" in name and name.endswith("_proj.weight") for name in files)
    assert {function.name for function in graph.functions} >= {"Linear", "LinearPacked"}


def test_the_manifest_says_that_nothing_is_lost(package: Package) -> None:
    manifest = valid_manifest(package.folder)
    layers = len(manifest.cache)
    assert {use.name: use.count for use in manifest.ops} == {
        "Linear": layers,
        "LinearPacked": 4 * layers + 1,
        "MoEDispatchMXFP4": layers,
        "SinkAttention": layers,
    }
    assert manifest.weights.bit_identical
    assert manifest.lossy == () and manifest.rounded == ()
    assert manifest.options is not None and manifest.options.dense == "packed"
    assert [(entry.name, entry.origin) for entry in manifest.weights.files] == [
        ("model.safetensors", "checkpoint"),
        (PACKED_FILE, "export"),
    ]


@needs_native
def test_many_tokens_have_the_very_logits_of_a_plain_package(
    package: Package, demo_package: Package
) -> None:
    """One kernel multiplies more than 24 tokens of both, in the same order."""
    ids = [[(7 * i) % package.manifest.vocab_size for i in range(40)]]
    found = []
    for folder in (package.folder, demo_package.folder):
        with (
            Session.open(folder, kernels="native", activations="bf16") as session,
            session.new_cache(1, 64) as cache,
        ):
            found.append(session.forward(ids, cache, logit_positions=[list(range(40))]))
    assert np.array_equal(*found)


@pytest.mark.parametrize("kernels", ["portable", pytest.param("native", marks=needs_native)])
def test_validate_holds_it_to_the_checkpoints_own_weights(
    package: Package, demo_checkpoint: Path, kernels: str
) -> None:
    report = validate(package.folder, demo_checkpoint, kernels=kernels)
    assert report.failed() == []


def test_validate_finds_a_bit_that_differs(
    package: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(package.folder, tmp_path / "package")
    content = bytearray((folder / PACKED_FILE).read_bytes())
    content[len(content) // 2] ^= 1  # the last bit of a mantissa, or a code
    (folder / PACKED_FILE).write_bytes(content)
    report = validate(folder, demo_checkpoint, kernels="portable")
    assert report.failed()


def test_a_weight_without_exceptions_and_one_with_too_many(tmp_path: Path) -> None:
    """The first lists one zero, which changes nothing; the second stays in the checkpoint."""
    document = tiny_document(hidden_size=64, head_dim=16)
    make_checkpoint(tmp_path / "checkpoint", document, layout="hf-bf16", dtype="BF16")
    path = tmp_path / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    even, wide = (f"model.layers.{i}.self_attn.q_proj" for i in (0, 1))
    tensors[f"{even}.weight"].fill_(0.25)
    exponents = torch.arange(tensors[f"{wide}.weight"].numel()) % 40 - 39
    tensors[f"{wide}.weight"] = (
        torch.exp2(exponents.float()).bfloat16().view(tensors[f"{wide}.weight"].shape)
    )
    save_file(tensors, path, {"format": "pt"})
    package = export(tmp_path / "checkpoint", tmp_path / "package", dense="packed")
    stored = load_file(package.folder / PACKED_FILE)
    assert stored[f"{even}.weight_positions"].tolist() == [[0, 0]]
    assert stored[f"{even}.weight_values"].tolist() == [0]
    assert torch.equal(unpacked(stored, even), tensors[f"{even}.weight"])
    assert not any(name.startswith(wide) for name in stored)
    assert validate(package.folder, tmp_path / "checkpoint", kernels="portable").failed() == []


def test_other_dtypes_and_widths_are_refused(tmp_path: Path) -> None:
    for name, dtype, width, head in (("half", "F16", 64, 16), ("narrow", "BF16", 96, 12)):
        document = tiny_document(hidden_size=width, head_dim=head)
        make_checkpoint(tmp_path / name, document, layout="hf-bf16", dtype=dtype)
        with pytest.raises(InputError, match="--dense packed: found no projection in bfloat16"):
            export(tmp_path / name, tmp_path / "package", dense="packed")
        assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "reference"}, "--dense packed writes weights into the package"),
        ({"target": "ort"}, "--dense packed: found with --target ort"),
    ],
)
def test_what_does_not_go_together(
    tiny_checkpoint: Path, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        export(tiny_checkpoint, tmp_path / "package", dense="packed", **options)
