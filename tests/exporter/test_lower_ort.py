"""`export --target ort`: what the pass leaves of the graph, what it writes, and what it refuses."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4, mxfp4_as_uint8, mxfp4_uint8_scales
from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.offered import BY_ROW
from gptoss_onnx.package import ORT_WEIGHTS
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session

EXTERNAL = onnx.TensorProto.EXTERNAL


@pytest.fixture(scope="module")
def graph(ort_package: Package) -> onnx.GraphProto:
    return onnx.load(ort_package.folder / "model.onnx", load_external_data=False).graph


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {
        attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
    }


def test_every_op_of_ours_is_lowered(ort_package: Package, graph: onnx.GraphProto) -> None:
    model = onnx.load(ort_package.folder / "model.onnx", load_external_data=False)
    assert {entry.domain: entry.version for entry in model.opset_import} == {
        "": 24,
        "com.microsoft": 1,
    }
    assert not model.functions
    ops = Counter((node.domain, node.op_type) for node in graph.node)
    layers = 6
    assert ops["com.microsoft", "GroupQueryAttention"] == ops["com.microsoft", "QMoE"] == layers
    assert ops["", "RotaryEmbedding"] == 2 * layers
    assert ops["", "Scan"] == 5 * layers + 1  # q, k, v, o, router; lm_head
    assert len({node.name for node in graph.node}) == len(graph.node)
    assert "model.layers.3.self_attn.GroupQueryAttention" in {node.name for node in graph.node}


def test_attention_keeps_windows_sinks_and_scale(graph: onnx.GraphProto) -> None:
    nodes = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    for layer, node in enumerate(nodes):
        found = attributes(node)
        assert found["do_rotary"] == 0 and found["num_heads"] == 8 and found["kv_num_heads"] == 2
        assert found["scale"] == pytest.approx(32**-0.5)
        assert (found.get("local_window_size"), found.get("sliding_window_cache")) == (
            (32, 1),
            (None, None),
        )[layer % 2]
        assert re.search(rf"layers\.{layer}\.self_attn", node.input[11])  # head_sink
        assert list(node.output[1:]) == [f"present.{layer}.key", f"present.{layer}.value"]


@pytest.fixture(scope="module")
def int8_graph(ort_int8_package: Package) -> onnx.GraphProto:
    return onnx.load(ort_int8_package.folder / "model.onnx", load_external_data=False).graph


@pytest.mark.parametrize(("fixture", "bits"), [("graph", 4), ("int8_graph", 8)])
def test_experts_are_blocks_of_32_with_gpt_oss_swiglu(
    request: pytest.FixtureRequest, fixture: str, bits: int
) -> None:
    graph: onnx.GraphProto = request.getfixturevalue(fixture)
    for node in (node for node in graph.node if node.op_type == "QMoE"):
        found = attributes(node)
        assert (found["expert_weight_bits"], found["block_size"], found["k"]) == (bits, 32, 4)
        assert found.get("weights_prepacked") == (1 if bits == 4 else None)
        assert found.get("quant_type") == (b"fp4" if bits == 4 else None)
        assert (found["activation_type"], found["swiglu_fusion"]) == (b"swiglu", 1)
        assert found["activation_alpha"] == pytest.approx(1.702) and found["activation_beta"] == 1
        assert found["swiglu_limit"] == 7 and found["normalize_routing_weights"] == 1


def test_manifest_says_what_was_done(ort_package: Package) -> None:
    manifest = ort_package.manifest
    assert (manifest.target, manifest.lossy, manifest.unsupported) == (
        "ort",
        (),
        ("kv cache in bfloat16", "activations bf16", "provider cuda", "activations int8"),
    )
    assert {use.name: use.count for use in manifest.ops} == {"GroupQueryAttention": 6, "QMoE": 6}
    assert {use.domain for use in manifest.ops} == {"com.microsoft"}
    files = [(file.name, file.origin) for file in manifest.weights.files]
    assert files == [("model.safetensors", "checkpoint")]
    assert manifest.weights.mode == "link" and manifest.weights.bit_identical
    assert manifest.onnxruntime == "1.32"


def test_manifest_of_8_bit_experts(ort_int8_package: Package) -> None:
    manifest = ort_int8_package.manifest
    other = ("kv cache in bfloat16", "activations bf16", "provider cuda")
    assert (manifest.lossy, manifest.unsupported) == ((), (*BY_ROW, *other))
    (file,) = manifest.weights.files
    assert (file.name, file.origin) == (ORT_WEIGHTS, "export")
    assert manifest.weights.mode == "copy" and manifest.weights.bit_identical
    assert manifest.onnxruntime == "1.29"  # it has window layers


def test_weights_are_the_checkpoints_own_bytes(
    demo_checkpoint: Path, ort_package: Package, graph: onnx.GraphProto
) -> None:
    """Nothing is written: they are byte ranges of a hard link to the checkpoint's file."""
    linked = ort_package.folder / "model.safetensors"
    assert linked.samefile(demo_checkpoint / "model.safetensors")
    assert not (ort_package.folder / ORT_WEIGHTS).exists()
    theirs = load_file(linked)
    external = [tensor for tensor in graph.initializer if tensor.data_location == EXTERNAL]
    assert {tensor.name.removesuffix(".chunks") for tensor in external} == theirs.keys()
    content = linked.read_bytes()
    for tensor in external:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert entries["location"] == "model.safetensors"
        begin, length = int(entries["offset"]), int(entries["length"])
        stored = theirs[tensor.name.removesuffix(".chunks")].reshape(-1).view(torch.uint8)
        assert content[begin : begin + length] == stored.numpy().tobytes()


def test_a_copy_is_one_file(demo_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    package = export(demo_checkpoint, folder, target="ort", weights="copy", dense="checkpoint")
    (file,) = package.manifest.weights.files
    assert (file.name, file.origin) == (ORT_WEIGHTS, "export")
    theirs = load_file(demo_checkpoint / "model.safetensors")
    for name, tensor in load_file(package.folder / ORT_WEIGHTS).items():
        assert torch.equal(tensor, theirs[name])
    with Session.open(package.folder) as session:
        assert np.isfinite(session.score([1, 2, 3])).all()


def test_weights_are_the_checkpoints_exactly(
    demo_checkpoint: Path, ort_int8_package: Package
) -> None:
    """Every tensor of the file, turned back into numbers, is the checkpoint's; and none is
    missing.
    """
    ours, theirs = (
        load_file(ort_int8_package.folder / ORT_WEIGHTS),
        load_file(demo_checkpoint / "model.safetensors"),
    )
    seen = set()
    for name, tensor in ours.items():
        if name.endswith("_uint8"):
            stem = name.removesuffix("_uint8")
            scales = ours[f"{stem}_uint8_scales"].repeat_interleave(32, -1)
            expected = decode_mxfp4(theirs[f"{stem}_blocks"], theirs[f"{stem}_scales"])
            assert torch.equal((tensor.float() - 128) * scales, expected)
            seen |= {f"{stem}_blocks", f"{stem}_scales"}
        elif not name.endswith("_uint8_scales"):
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name])
            seen.add(name)
    assert seen == theirs.keys()


def test_external_data_covers_the_file(
    ort_int8_package: Package, int8_graph: onnx.GraphProto
) -> None:
    stored = load_file(ort_int8_package.folder / ORT_WEIGHTS)
    content = (ort_int8_package.folder / ORT_WEIGHTS).read_bytes()
    external = [tensor for tensor in int8_graph.initializer if tensor.data_location == EXTERNAL]
    assert {tensor.name.removesuffix(".chunks") for tensor in external} == stored.keys()
    for tensor in external:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        begin, length = int(entries["offset"]), int(entries["length"])
        assert entries["location"] == ORT_WEIGHTS
        assert (
            content[begin : begin + length]
            == stored[tensor.name.removesuffix(".chunks")]
            .reshape(-1)
            .view(torch.uint8)
            .numpy()
            .tobytes()
        )


@settings(max_examples=60, deadline=None)
@given(blocks=st.binary(min_size=16, max_size=16), scale=st.integers(0, 254))
def test_mxfp4_as_integers_is_exact(blocks: bytes, scale: int) -> None:
    """For every byte and every scale that is a number, the product in float32 is the MXFP4 value
    itself.
    """
    packed = torch.frombuffer(bytearray(blocks), dtype=torch.uint8)[None]
    scales = torch.tensor([scale], dtype=torch.uint8)
    found = (mxfp4_as_uint8(packed).float() - 128) * mxfp4_uint8_scales(scales)[:, None]
    np.testing.assert_array_equal(found.flatten(), decode_mxfp4(packed, scales))


def test_genai_config_fits_the_model(ort_package: Package, demo_checkpoint: Path) -> None:
    document = json.loads((ort_package.folder / "genai_config.json").read_text())
    config = json.loads((demo_checkpoint / "config.json").read_text())
    decoder = document["model"]["decoder"]
    assert document["model"]["type"] == "gptoss"
    assert (
        decoder["sliding_window"]["layers"] == [0, 2, 4]
        and decoder["sliding_window"]["window_size"] == 32
    )
    assert not decoder["sliding_window"]["slide_key_value_cache"]
    assert decoder["num_hidden_layers"] == config["num_hidden_layers"]
    assert (
        config["sliding_window"]
        < document["search"]["max_length"]
        <= config["max_position_embeddings"]
    )


def test_a_pad_token_that_there_is_not_stays_out_of_genai_config(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document())
    ids = {"eos_token_id": [7, 9], "pad_token_id": -1}
    (tmp_path / "checkpoint" / "generation_config.json").write_text(json.dumps(ids))
    package = export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    model = json.loads((package.folder / "genai_config.json").read_text())["model"]
    assert model["eos_token_id"] == [7, 9]
    assert "pad_token_id" not in model


def test_no_window_leaves_no_sliding_window(tmp_path: Path) -> None:
    document = tiny_document(layer_types=["full_attention"] * 2, num_hidden_layers=2)
    make_checkpoint(tmp_path / "checkpoint", document)
    package = export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    assert "sliding_window" not in (package.folder / "genai_config.json").read_text()


FOUND = "found with --target ort, "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "reference"}, f"--weights reference: {FOUND}"),
        ({"dense": "int8"}, f"--dense int8: {FOUND}"),
        ({"kv_dtype": "bfloat16"}, f"--kv-dtype bfloat16: {FOUND}"),
        ({"experts": "int8", "weights": "link"}, "--weights link: found with --experts int8, "),
        ({"onnxruntime": "1.28"}, "--onnxruntime 1.28: found MXFP4 experts, "),
        ({"onnxruntime": "1.31"}, "onnxruntime: found '1.31', expected one of 1.28, 1.32"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    demo_checkpoint: Path, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}[^\n]*$"):
        export(demo_checkpoint, tmp_path / "package", target="ort", **options)
    assert not list(tmp_path.iterdir())


def test_a_head_dim_that_the_op_cannot_take_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "checkpoint", tiny_document(head_dim=12))
    with pytest.raises(InputError, match="head_dim 12, expected a multiple of 8"):
        export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    assert not (tmp_path / "package").exists()


def test_no_room_is_said_before_anything_is_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PackageError, match=r"the weights of target ort need .* are free"):
        export(tiny_checkpoint, tmp_path / "package", target="ort", weights="copy")
    assert not list(tmp_path.iterdir())
