"""`export --target ort` of every architecture: the ops of its graph, and what becomes of weights.

What the packages compute is held to transformers in `tests/architectures/`.
"""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.checkpoint.fields import Fields
from gptoss_onnx.exporter import export
from gptoss_onnx.package import GENAI_CONFIG, ORT_WEIGHTS
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.architectures import ARCHITECTURES, gpt_oss_lab
from gptoss_onnx.reference.config import ExpertsConfig, FeedForwardConfig
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.runtime import Session
from support.fp8_checkpoint import write_fp8
from support.tolerances import PACKAGE_LOGITS
from support.transformers_models import write_by_transformers

ROTATED = 2  # query and key
# Layers, those with a mixture of experts, and by which op.
EXPERTS = {"gpt_oss": (4, "QMoE"), "gpt_oss_lab": (2, "MoE"), "mixtral": (3, "MoE")} | {
    "qwen3_moe": (2, "MoE")
}
WITHOUT_ROTATION = ("gpt2", "openai-gpt", "bloom")


def lower(model_type: str, folder: Path) -> onnx.GraphProto:
    """Export a tiny checkpoint to ops of ONNX Runtime; returns the graph."""
    make_checkpoint(folder / "checkpoint", tiny_document(model_type), seed=1)
    export(folder / "checkpoint", folder / "package", target="ort")
    return graph_of(folder / "package")


def graph_of(package: Path) -> onnx.GraphProto:
    model = onnx.load(package / "model.onnx", load_external_data=False)
    assert {entry.domain for entry in model.opset_import} == {"", "com.microsoft"}
    assert not model.functions
    return model.graph


def nodes_of(graph: onnx.GraphProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == op]


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def check_against_reference(folder: Path) -> None:
    tokens = list(range(20))
    with open_checkpoint(folder / "checkpoint") as checkpoint:
        expected = Decoder.from_checkpoint(checkpoint).score(tokens)
    with Session.open(folder / "package", threads=1) as session:
        found = torch.from_numpy(session.score(tokens))
    torch.testing.assert_close(found, expected, atol=PACKAGE_LOGITS, rtol=0)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_ops(model_type: str, tmp_path: Path) -> None:
    graph = lower(model_type, tmp_path)
    document = tiny_document(model_type)
    layers = document.get("num_hidden_layers") or document["n_layer"]
    ops = Counter(node.op_type for node in graph.node if node.domain == "com.microsoft")
    count, op = EXPERTS.get(model_type, (0, "MoE"))
    assert ops == {"GroupQueryAttention": layers} | ({op: count} if count else {})
    rotated = 0 if model_type in WITHOUT_ROTATION else ROTATED * layers
    assert len(nodes_of(graph, "RotaryEmbedding")) == rotated
    assert len({node.name for node in graph.node}) == len(graph.node)
    genai = json.loads((tmp_path / "package" / GENAI_CONFIG).read_text())
    assert genai["model"]["type"] == ARCHITECTURES[model_type].genai


def test_glm_rotates_half_of_each_head_in_pairs(tmp_path: Path) -> None:
    for node in nodes_of(lower("glm", tmp_path), "RotaryEmbedding"):
        found = attributes(node)
        assert found["interleaved"] == 1
        assert found["rotary_embedding_dim"] == 8


def test_bloom_has_one_bias_for_all_layers_and_nothing_else_of_attention(tmp_path: Path) -> None:
    found = {
        tuple(node.input[7:]) for node in nodes_of(lower("bloom", tmp_path), "GroupQueryAttention")
    }
    blank = ("",) * 5  # sinks, scales and norms
    assert found == {("", "", "", "alibi.bias.output", *blank, "lengths.new_int32.output")}


def test_weights_of_gpt2_are_neither_transposed_nor_written_twice(tmp_path: Path) -> None:
    """In float32, as published: the tied embedding is what lm_head multiplies with."""
    make_checkpoint(tmp_path / "checkpoint", tiny_document("gpt2"), seed=1, dtype="F32")
    export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    graph = graph_of(tmp_path / "package")
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert not (tmp_path / "package" / ORT_WEIGHTS).exists()
    places = {
        entry.name: {pair.key: pair.value for pair in entry.external_data}
        for entry in graph.initializer
        if entry.external_data
    }
    assert places.keys() == stored.keys()
    *layers, head = nodes_of(graph, "Gemm")
    assert head.input[1] == nodes_of(graph, "Gather")[0].input[0]
    assert attributes(head)["transB"] == 1
    assert [attributes(node).get("transB", 0) for node in layers] == [0] * len(layers)


def test_a_weight_file_of_the_computed_ones_name_is_listed_once(tmp_path: Path) -> None:
    """Nothing is computed here, so the checkpoint's file may have that name."""
    make_checkpoint(tmp_path / "checkpoint", tiny_document("gpt2"), seed=1, dtype="F32")
    file = tmp_path / "checkpoint" / "model.safetensors"
    index = {"weight_map": dict.fromkeys(load_file(file), ORT_WEIGHTS)}
    file.rename(file.with_name(ORT_WEIGHTS))
    file.with_name("model.safetensors.index.json").write_text(json.dumps(index))
    package = export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    (entry,) = package.manifest.weights.files
    assert (entry.name, entry.origin) == (ORT_WEIGHTS, "checkpoint")
    Session.open(package.folder).close()


def test_experts_stored_one_by_one_become_interleaved_rows(tmp_path: Path) -> None:
    graph = lower("qwen3_moe", tmp_path)
    stored = load_file(tmp_path / "checkpoint" / "model.safetensors")
    ours = load_file(tmp_path / "package" / ORT_WEIGHTS)
    stem = "model.layers.1.mlp.experts"
    for expert in range(8):
        gate_up = ours[f"{stem}.gate_up_proj_interleaved_float32"][expert]
        assert torch.equal(gate_up[0::2], stored[f"{stem}.{expert}.gate_proj.weight"].float())
        assert torch.equal(gate_up[1::2], stored[f"{stem}.{expert}.up_proj.weight"].float())
        down = ours[f"{stem}.down_proj_float32"][expert]
        assert torch.equal(down, stored[f"{stem}.{expert}.down_proj.weight"].float())
    for node in nodes_of(graph, "MoE"):
        assert attributes(node) == {
            "k": 2,
            "activation_type": b"swiglu",
            "swiglu_fusion": 1,
            "activation_alpha": 1.0,
            "activation_beta": 0.0,
            "normalize_routing_weights": 1,
        }


def test_shares_of_a_softmax_over_all_experts_go_to_the_lower_of_equals(tmp_path: Path) -> None:
    """Routers of zeros: every expert has an eighth, and the first two are taken."""
    make_checkpoint(tmp_path / "checkpoint", tiny_document("qwen3_moe"), seed=1, dtype="F32")
    path = tmp_path / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith("mlp.gate.weight")]:
        tensors[name] = torch.zeros_like(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})
    export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    check_against_reference(tmp_path)


def test_fp8_becomes_what_transformers_decodes(tmp_path: Path) -> None:
    write_by_transformers("qwen3_moe", {"num_hidden_layers": 2}, tmp_path / "c", sharded=False)
    write_fp8(tmp_path / "c", tmp_path / "fp8", tmp_path / "decoded", (16, 32))
    tokens, logits = list(range(20)), []
    for name in ("fp8", "decoded"):
        export(tmp_path / name, tmp_path / f"{name}-package", target="ort")
        with Session.open(tmp_path / f"{name}-package", threads=1) as session:
            logits.append(torch.from_numpy(session.score(tokens)))
    assert torch.equal(*logits)


@pytest.mark.parametrize("activation", ["silu", "relu", "gelu_tanh"])
def test_experts_without_a_gate(
    activation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No architecture has them yet, with these activations."""
    read = gpt_oss_lab._read_experts

    def with_activation(fields: Fields, dense: FeedForwardConfig) -> ExpertsConfig:
        return replace(read(fields, dense), activation=activation)

    monkeypatch.setattr(gpt_oss_lab, "_read_experts", with_activation)
    document = tiny_document("gpt_oss_lab", use_swiglu=False, bias=True)
    make_checkpoint(tmp_path / "checkpoint", document, seed=1)
    export(tmp_path / "checkpoint", tmp_path / "package", target="ort")
    check_against_reference(tmp_path)


@pytest.mark.parametrize("model_type", ["gpt2", "bloom"])
def test_rows_of_a_batch_have_their_positions(model_type: str, tmp_path: Path) -> None:
    lower(model_type, tmp_path)
    rows = [list(range(12)), list(range(100, 88, -1))]
    with Session.open(tmp_path / "package", threads=1) as session:
        with session.new_cache(2, 12) as cache:
            steps = [[row[:8] for row in rows]]
            steps += [[row[place : place + 1] for row in rows] for place in range(8, 12)]
            found = np.concatenate([np.stack(session.forward(step, cache)) for step in steps], 1)
        expected = np.stack([session.score(row)[7:] for row in rows])
    np.testing.assert_allclose(found[:, -5:], expected, atol=PACKAGE_LOGITS, rtol=0)
