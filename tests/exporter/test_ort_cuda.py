"""`export --target ort --provider cuda`: checked for structure, and in float32 on the CPU for what
it would compute.

One test runs it on CUDA, where there is a GPU; so far there has been none.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.capi import onnxruntime_pybind11_state as native
from safetensors.torch import load_file

from gptoss_onnx.custom_ops.mxfp4 import decode_mxfp4, mxfp4_by_column
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.offered import not_offered
from gptoss_onnx.package import ORT_WEIGHTS
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.judging.limits import CACHES, EXACT
from gptoss_onnx.validation.judging.metrics import Difference, compare
from support.cuda_stand_in import decode_by_column, stand_in
from support.hugging_face import random_tokens

LAYERS, HIDDEN, WIDTH, EXPERTS = 4, 64, 96, 6  # of tiny_config
BFLOAT16, FLOAT = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def package(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return export(
        tiny_checkpoint, tmp_path_factory.mktemp("cuda") / "package", target="ort", provider="cuda"
    )


@pytest.fixture(scope="module")
def model(package: Package) -> onnx.ModelProto:
    return onnx.load(package.folder / "model.onnx", load_external_data=False)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(1, 5), blocks=st.integers(1, 3))
def test_reordering_keeps_every_value(data: st.DataObject, rows: int, blocks: int) -> None:
    """For every code and every scale that float32 can hold; and ONNX Runtime's own packing gives
    the same bytes.
    """
    count = 2 * rows * blocks
    drawn = data.draw(st.binary(min_size=count * 16, max_size=count * 16))
    packed = torch.frombuffer(bytearray(drawn), dtype=torch.uint8).reshape(2 * rows, blocks, 16)
    exponents = data.draw(st.lists(st.integers(1, 252), min_size=count, max_size=count))
    scales = torch.tensor(exponents, dtype=torch.uint8).reshape(2 * rows, blocks)
    found = mxfp4_by_column(packed)
    assert found.shape == (blocks * 32, rows)
    np.testing.assert_array_equal(
        decode_by_column(found.numpy(), scales.numpy()), decode_mxfp4(packed, scales)
    )
    theirs = native.pack_fp4_weights_for_cuda_moe_gemm(
        packed.numpy().reshape(2 * rows, -1), 2 * rows, blocks * 32
    )
    assert np.asarray(theirs).astype(np.uint8).tobytes() == found.contiguous().numpy().tobytes()


def test_weights_are_the_checkpoints_exactly(tiny_checkpoint: Path, package: Package) -> None:
    """Every tensor of the file, turned back into numbers, is the checkpoint's; and none is
    missing.
    """
    ours, theirs = (
        load_file(package.folder / ORT_WEIGHTS),
        load_file(tiny_checkpoint / "model.safetensors"),
    )
    seen = set()
    for name, tensor in ours.items():
        source = name.removesuffix("_float32").removesuffix("_by_column")
        seen.add(source)
        if name.endswith("_by_column"):
            scales = theirs[source.removesuffix("_blocks") + "_scales"]
            decoded = decode_by_column(tensor.numpy(), scales.numpy())
            np.testing.assert_array_equal(decoded, decode_mxfp4(theirs[source], scales))
        elif name.endswith("_float32"):
            assert torch.equal(tensor, theirs[source].float())
        else:
            assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name])
    assert seen == theirs.keys()


def test_onnx_runtime_finds_nothing_wrong_but_the_want_of_kernels(package: Package) -> None:
    """It resolves the graph by its own schemas before it looks for kernels: attention has none in
    bfloat16.
    """
    with pytest.raises(
        native.NotImplemented, match="Could not find an implementation for GroupQueryAttention"
    ):
        onnxruntime.InferenceSession(
            str(package.folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )


def test_nodes_versions_and_types(model: onnx.ModelProto) -> None:
    assert model.ir_version >= 12  # FLOAT8E8M0
    assert {entry.domain: entry.version for entry in model.opset_import} == {
        "": 24,
        "com.microsoft": 1,
    }
    ops = Counter(node.op_type for node in model.graph.node)
    assert ops["GroupQueryAttention"] == ops["QMoE"] == LAYERS
    assert ops["Gemm"] == 5 * LAYERS + 1 and ops["RotaryEmbedding"] == 2 * LAYERS
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    caches = [
        value
        for value in [*model.graph.input, *model.graph.output]
        if value.name.endswith((".key", ".value"))
    ]
    assert {value.type.tensor_type.elem_type for value in caches} == {BFLOAT16} and len(
        caches
    ) == 4 * LAYERS
    logits = next(value for value in model.graph.output if value.name == "logits")
    assert logits.type.tensor_type.elem_type == FLOAT


def test_experts_are_mxfp4_in_the_order_of_the_schema(model: onnx.ModelProto) -> None:
    schema = next(entry for entry in native.get_all_operator_schema() if entry.name == "QMoE")
    position = {entry.name: index for index, entry in enumerate(schema.inputs)}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    u8, e8m0 = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT8E8M0
    expected = {
        "fc1_experts_weights": (u8, [EXPERTS, HIDDEN, WIDTH]),
        "fc1_scales": (e8m0, [EXPERTS, 2 * WIDTH, HIDDEN // 32]),
        "fc2_experts_weights": (u8, [EXPERTS, WIDTH, HIDDEN // 2]),
        "fc2_scales": (e8m0, [EXPERTS, HIDDEN, WIDTH // 32]),
        "fc1_global_scale": (FLOAT, [EXPERTS]),
        "fc2_global_scale": (FLOAT, [EXPERTS]),
    }
    for node in (node for node in model.graph.node if node.op_type == "QMoE"):
        for name, form in expected.items():
            tensor = tensors[node.input[position[name]]]
            assert (tensor.data_type, list(tensor.dims)) == form, name
        assert (onnx.numpy_helper.to_array(tensors[node.input[15]]) == 1).all()
        assert not any(node.input[8:15])
        found = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        assert found.keys() <= schema.attributes.keys()
        assert (
            found["quant_type"],
            found["expert_weight_bits"],
            found["block_size"],
            found["k"],
        ) == (b"fp4", 4, 32, 3)
        assert (found["activation_type"], found["swiglu_fusion"], found["swiglu_limit"]) == (
            b"swiglu",
            1,
            7,
        )
        assert found["activation_alpha"] == pytest.approx(1.702) and found["activation_beta"] == 1


def test_only_attention_and_experts_are_bfloat16(model: onnx.ModelProto) -> None:
    """Each of their activations, sinks and biases comes from a Cast, and each result goes into
    one.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    narrow = [
        node
        for node in model.graph.node
        if node.op_type == "Cast" and node.attribute[0].i == BFLOAT16
    ]
    fed = set()
    for node in model.graph.node:
        inputs = {"GroupQueryAttention": (0, 1, 2, 11), "QMoE": (0, 1, 4, 7)}.get(node.op_type, ())
        for index in inputs:
            assert makers[node.input[index]] in narrow
            fed.add(node.input[index])
        if inputs:
            users = [user for user in model.graph.node if node.output[0] in user.input]
            assert [(user.op_type, user.attribute[0].i) for user in users] == [("Cast", FLOAT)]
    assert fed == {node.output[0] for node in narrow}


def test_window_layers_have_the_capacity_that_cuda_takes(
    package: Package, model: onnx.ModelProto
) -> None:
    """CUDA takes window caches of exactly the window; that is what sessions and onnxruntime-genai
    allocate.
    """
    nodes = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    for node, layer in zip(nodes, package.manifest.cache, strict=True):
        found = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        assert found.get("local_window_size", 0) == layer.window
        assert found.get("sliding_window_cache", 0) == (layer.window > 0)


@pytest.fixture(scope="module")
def demo(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("cuda-demo") / "package"
    return export(demo_checkpoint, folder, target="ort", provider="cuda")


def test_without_its_casts_it_computes_the_reference(
    demo: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    """On the CPU, with its weights decoded, to the limits of an exact package."""
    report = validate(stand_in(demo, tmp_path / "stand-in", rounds=False), demo_checkpoint)
    assert report.passed, report.table()


def test_with_its_casts_it_is_within_the_limits_of_bfloat16(
    demo: Package, demo_checkpoint: Path, tmp_path: Path
) -> None:
    """On the CPU, with its weights decoded; what the kernels round on the way is not in it."""
    with Session.open(stand_in(demo, tmp_path / "stand-in", rounds=True), threads=1) as session:
        found = difference(session, demo_checkpoint)
    assert CACHES["bfloat16"].hold(found), found
    assert found.max_abs > EXACT.max_abs  # really narrower


@pytest.mark.gpu
@pytest.mark.skipif(
    "fp4-qmoe=" not in onnxruntime.get_build_info(), reason="no onnxruntime-gpu with QMoE on MXFP4"
)
def test_on_cuda_it_is_within_the_limits_of_bfloat16(demo: Package, demo_checkpoint: Path) -> None:
    with Session.open(demo.folder, provider="cuda") as session:
        assert CACHES["bfloat16"].hold(difference(session, demo_checkpoint))


def difference(session: Session, checkpoint: Path) -> Difference:
    """Return how far the session is from the reference, on random tokens beyond the window."""
    with open_checkpoint(checkpoint) as opened:
        tokens = random_tokens(opened.config, 4 * opened.config.window, seed=5)
        return compare(session.score(tokens), Decoder.from_checkpoint(opened).score(tokens).numpy())


def test_manifest_and_genai_config_say_what_was_done(package: Package) -> None:
    manifest = Manifest.read(package.folder)
    assert manifest == package.manifest
    assert (manifest.target, manifest.kv_dtype, manifest.unsupported) == (
        "ort",
        "bfloat16",
        not_offered("ort", "cuda", "1.28", "checkpoint"),
    )
    assert manifest.lossy == (
        "kv cache in bfloat16",
        "activations of attention and experts in bfloat16",
    )
    assert manifest.weights.bit_identical
    assert manifest.runs_on("cuda") and not manifest.runs_on("cpu")
    options = json.loads((package.folder / "genai_config.json").read_text())["model"]["decoder"][
        "session_options"
    ]
    assert options["provider_options"] == [{"cuda": {"use_tf32": "0"}}]
