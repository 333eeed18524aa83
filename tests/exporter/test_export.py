"""What `export` writes: the graph, the weights and how they are placed, the manifest, the side
files.
"""

import hashlib
import itertools
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.exporter.check import check_onnx
from gptoss_onnx.exporter.options import ExportOptions
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_config, tiny_document
from gptoss_onnx.runtime import Session

GOLDEN_LIMIT = 2_000_000  # bytes
OWN_BYTES_LIMIT = 5_000_000


@pytest.fixture(scope="module")
def graph(demo_package: Package) -> onnx.ModelProto:
    return onnx.load(demo_package.folder / "model.onnx", load_external_data=False)


def test_weights_are_hard_links_and_nothing_is_copied(
    tmp_path: Path, demo_checkpoint: Path
) -> None:
    checkpoint = shutil.copytree(demo_checkpoint, tmp_path / "checkpoint")
    package = export(checkpoint, tmp_path / "package")
    linked = package.folder / "model.safetensors"
    assert linked.samefile(checkpoint / "model.safetensors")
    assert linked.stat().st_nlink == 2
    own = [
        path for path in package.folder.rglob("*") if path.is_file() and path.stat().st_nlink == 1
    ]
    assert sum(path.stat().st_size for path in own) < OWN_BYTES_LIMIT
    assert package.manifest.weights.mode == "link"
    assert package.manifest.weights.bit_identical


def test_every_initializer_is_the_checkpoints_bytes(
    demo_checkpoint: Path, demo_package: Package, graph
) -> None:
    """External data must point at exactly the bytes that safetensors' own reader returns, under the
    same names.
    """
    external = [
        tensor
        for tensor in graph.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    with safe_open(demo_checkpoint / "model.safetensors", framework="pt") as theirs:
        assert {tensor.name for tensor in external} == set(theirs.keys())
        for tensor in external:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            content = (demo_package.folder / entries["location"]).read_bytes()
            offset, length = int(entries["offset"]), int(entries["length"])
            value = theirs.get_tensor(tensor.name)
            assert (
                content[offset : offset + length]
                == value.reshape(-1).view(torch.uint8).numpy().tobytes()
            )
            assert list(value.shape) == list(tensor.dims)


def test_graph_is_clean(graph: onnx.ModelProto) -> None:
    nodes = graph.graph.node
    assert {node.domain for node in nodes} == {"", "ai.gptoss"}
    assert {entry.domain: entry.version for entry in graph.opset_import} == {"": 24, "ai.gptoss": 1}
    assert len({node.name for node in nodes}) == len(nodes)
    assert "model.layers.0.self_attn.q_proj.Linear" in {node.name for node in nodes}
    assert not any(node.doc_string or node.metadata_props for node in nodes)
    assert "Traceback" not in str(graph) and ".py" not in str(graph)
    text = graph.SerializeToString()
    assert b"stack_trace" not in text and os.fsencode(Path.cwd()) not in text
    functions = [function.name for function in graph.functions]
    assert functions.index("DecodeMXFP4") < functions.index("MoEDispatchMXFP4")
    dims = {
        dim.dim_param for value in graph.graph.input for dim in value.type.tensor_type.shape.dim
    } - {""}
    assert dims == {"batch", "sequence", "kept", "capacity", "window_capacity"}


def test_interface_is_the_documented_one(graph: onnx.ModelProto) -> None:
    inputs = [value.name for value in graph.graph.input]
    layers = sum(name.endswith(".key") for name in inputs)
    caches = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    heads = ["input_ids", "past_lengths", "new_lengths", "logit_positions"]
    assert inputs == [*heads, *(f"past_key_values.{cache}" for cache in caches)]
    assert [value.name for value in graph.graph.output] == [
        "logits",
        *(f"present.{cache}" for cache in caches),
    ]


def test_copy_passes_the_checker_by_path(demo_package: Package) -> None:
    onnx.checker.check_model(demo_package.folder / "model.onnx", full_check=True)
    assert (demo_package.folder / "model.safetensors").stat().st_nlink == 1


def test_link_passes_the_checker_with_weights_as_inputs(tiny_package: Package) -> None:
    check_onnx(onnx.load(tiny_package.folder / "model.onnx", load_external_data=False))


def test_checker_finds_a_broken_graph(tiny_package: Package) -> None:
    graph = onnx.load(tiny_package.folder / "model.onnx", load_external_data=False)
    graph.graph.node[3].input[0] = "nothing_of_this_name"
    with pytest.raises(PackageError, match="nothing_of_this_name"):
        check_onnx(graph)


def test_reference_mode_places_nothing_and_runs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", weights="reference")
    assert not list(package.folder.glob("*.safetensors"))
    assert package.manifest.weights.root == str(tiny_checkpoint.resolve())
    with Session.open(package.folder, threads=1) as session:
        assert session.score([1, 2, 3]).shape == (3, tiny_config().vocab_size)


@pytest.mark.parametrize("weights", ["link", "reference"])
def test_hub_cache_snapshot(tmp_path: Path, weights: str) -> None:
    """A snapshot is symlinks into blobs: links go to the blobs, under the snapshot's names, and
    sha256 comes free.
    """
    plain, snapshot = tmp_path / "plain", tmp_path / "models--a--b" / "snapshots" / "main"
    make_checkpoint(plain, tiny_document(), seed=4, shard_bytes=200_000)
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    hashes = {}
    for path in sorted(plain.iterdir()):
        hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.move(path, blobs / hashes[path.name])
        (snapshot / path.name).symlink_to(Path("../../blobs") / hashes[path.name])
    package = export(snapshot, tmp_path / "package", weights=weights)
    files = package.manifest.weights.files
    assert len(files) > 1
    for entry in files:
        name = (
            entry.name
            if weights == "link"
            else next(n for n, digest in hashes.items() if digest == entry.name)
        )
        assert entry.sha256 == hashes[name]
        assert weights == "reference" or (package.folder / name).samefile(blobs / hashes[name])
    with Session.open(package.folder, threads=1) as session:
        assert np.isfinite(session.score([5, 6])).all()


def test_manifest_describes_the_package(demo_package: Package, demo_checkpoint: Path) -> None:
    manifest = Manifest.read(demo_package.folder)
    assert manifest == demo_package.manifest
    with open_checkpoint(demo_checkpoint) as checkpoint:
        config = checkpoint.config
    assert [layer.window for layer in manifest.cache] == [
        layer.attention.window for layer in config.layers
    ]
    assert {use.name: use.count for use in manifest.ops} == {
        "SinkAttention": config.num_layers,
        "MoEDispatchMXFP4": config.num_layers,
        "Linear": 5 * config.num_layers + 1,
    }
    assert manifest.weights.layout == "hf-mxfp4"
    assert manifest.lossy == ()


def test_side_files_come_as_they_were(demo_package: Package, demo_checkpoint: Path) -> None:
    for name in (*demo_package.manifest.tokenizer_files, "generation_config.json"):
        assert (demo_package.folder / name).read_bytes() == (demo_checkpoint / name).read_bytes()
    assert {"tokenizer.json", "chat_template.jinja"} <= set(demo_package.manifest.tokenizer_files)


def test_package_is_readable_by_others(tiny_package: Package) -> None:
    assert stat.S_IMODE(tiny_package.folder.stat().st_mode) == 0o755


def test_golden_vectors_agree_with_the_package(demo_package: Package) -> None:
    path = demo_package.folder / "golden" / "golden.json"
    assert path.stat().st_size < GOLDEN_LIMIT
    golden = json.loads(path.read_text())
    assert [case["text"] for case in golden["cases"] if case["text"]]
    with Session.open(demo_package.folder, kernels="portable", threads=1) as session:
        for case in golden["cases"]:
            logits = session.score(case["token_ids"])[case["positions"]]
            top = np.take_along_axis(logits, np.array(case["top_indices"]), axis=1)
            np.testing.assert_allclose(top, case["top_logits"], atol=1e-3)
            np.testing.assert_allclose(
                logits[:, golden["sampled_indices"]], case["sampled_logits"], atol=1e-3
            )
            logsumexp = np.log(np.exp(logits.astype(np.float64)).sum(-1))
            np.testing.assert_allclose(logsumexp, case["logsumexp"], atol=1e-3)
            assert len(case["greedy"]) == 64


@pytest.mark.parametrize("kv_dtype", ["float16", "bfloat16"])
def test_narrow_cache_is_recorded_and_runs(
    tiny_checkpoint: Path, tiny_package: Package, tmp_path: Path, kv_dtype: str
) -> None:
    package = export(tiny_checkpoint, tmp_path / "package", kv_dtype=kv_dtype)
    assert package.manifest.lossy == (f"kv cache in {kv_dtype}",)
    with (
        Session.open(package.folder, threads=1) as narrow,
        Session.open(tiny_package.folder, threads=1) as wide,
    ):
        tokens = list(range(30))
        correlation = np.corrcoef(
            narrow.score(tokens, chunk=5).ravel(), wide.score(tokens, chunk=5).ravel()
        )[0, 1]
    assert 0.995 < correlation < 1


def test_existing_output_is_kept_without_force_and_replaced_with_it(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "package"
    export(tiny_checkpoint, output)
    (output / "mark").touch()
    with pytest.raises(PackageError, match="--force"):
        export(tiny_checkpoint, output)
    assert (output / "mark").exists()
    export(tiny_checkpoint, output, force=True)
    assert not (output / "mark").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package"]


def test_force_leaves_alone_what_is_no_package(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(PackageError, match="is not a package: it is left alone"):
        export(tiny_checkpoint, tmp_path, force=True)
    assert (tmp_path / "thesis.txt").exists()


CHOICES: dict[str, tuple[Any, ...]] = {
    "target": ("portable", "ort", "openvino"),
    "provider": ("cpu", "cuda"),
    "weights": (None, "link", "copy", "reference"),
    "dense": ("checkpoint", "packed", "int8", "float32"),
    "experts": ("checkpoint", "int8", "int4"),
    "kv_dtype": (None, "float32", "float16", "bfloat16"),
    "onnxruntime": (None, "1.28", "1.32"),
}


def _said_to_go_together(
    target: str,
    provider: str,
    weights: str,
    dense: str,
    experts: str,
    kv_dtype: str,
    onnxruntime: str,
) -> bool:
    """What the help of `export` says, in the order of its lines."""
    if target in ("portable", "openvino"):
        written = ("packed", "int8") if target == "portable" else ("checkpoint", "int8")
        return (
            (provider, experts) == ("cpu", "checkpoint")
            and (
                (dense == "checkpoint" and target == "portable")
                or (dense in written and weights in (None, "link", "copy"))
            )
            and onnxruntime in (None, "1.28")
        )
    may_link = provider == "cpu" and experts == "checkpoint"
    if weights not in ((None, "link", "copy") if may_link else (None, "copy")):
        return False
    if dense not in (("checkpoint", "float32") if provider == "cpu" else ("checkpoint",)):
        return False
    if provider == "cpu":
        return kv_dtype in (None, "float32", "float16")
    return (
        experts == "checkpoint" and kv_dtype in (None, "bfloat16") and onnxruntime in (None, "1.28")
    )


def test_the_help_says_which_options_go_together() -> None:
    for choices in itertools.product(*CHOICES.values()):
        arguments = dict(zip(CHOICES, choices, strict=True))
        if _said_to_go_together(**arguments):
            assert ExportOptions.choose(**arguments).target == arguments["target"]
        else:
            with pytest.raises(InputError):
                ExportOptions.choose(**arguments)
