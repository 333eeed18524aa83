"""What a decode step must read, against sums by hand; and the reader of ONNX files against the onnx
package.
"""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from gptoss_onnx.bench.footprint import WeightBytes, cache_bytes, mixtures, weight_bytes
from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import CacheLayer, Manifest
from gptoss_onnx.runtime.graph_file import GraphFile, Initializer, Node
from support.tiny_package import tiny_package

FULL = CacheLayer(0, 0, 2, 32, "", "", "", "")
WINDOW = CacheLayer(8, 0, 2, 32, "", "", "", "")
SLOT = 2 * 2 * 32  # elements: key and value, two heads of 32

# Hidden 64, vocabulary 100, 8 experts of width 48; 2 of them a token.
EMBEDDING = Initializer("embedding", (100, 64), 16)
PROJECTION = Initializer("projection", (96, 64), 16)
BIAS = Initializer("bias", (96,), 16)
INT8 = Initializer("int8", (96, 64), 8)
SCALES = Initializer("scales", (96, 2), 32)
BLOCKS = Initializer("blocks", (8, 96, 2, 16), 8)
EXPERT_BIAS = Initializer("expert bias", (8, 96), 16)


def node(op: str, *inputs: str, output: str = "", domain: str = "", **attributes: int) -> Node:
    return Node(op, domain, inputs, (output,), attributes)


def graph(*nodes: Node, initializers: tuple[Initializer, ...]) -> GraphFile:
    return GraphFile(nodes, {initializer.name: initializer for initializer in initializers})


def test_each_kind_of_weight_counts_what_a_token_reads_of_it() -> None:
    found = graph(
        node("Gather", "embedding", "ids"),
        node("Cast", "bias", output="bias32"),
        node("Linear", "x", "projection", "bias32", domain="ai.gptoss"),
        node("LinearInt8", "x", "int8", "scales", domain="ai.gptoss"),
        node("Cast", "expert bias", output="expert bias32"),
        node("MoEDispatchMXFP4", "x", "r", "blocks", "expert bias32", domain="ai.gptoss", top_k=2),
        initializers=(
            EMBEDDING,
            BIAS,
            PROJECTION,
            INT8,
            SCALES,
            EXPERT_BIAS,
            BLOCKS,
            Initializer("unused", (9,), 8),
        ),
    )
    dense = 96 * 64 * 2 + 96 * 2 + 96 * 64 + 96 * 2 * 4
    experts = 2 * (96 * 2 * 16 + 96 * 2)
    assert weight_bytes(found) == WeightBytes(dense, experts, embedding=64 * 2)
    assert weight_bytes(found).total == dense + experts + 128


def test_of_experts_that_lie_apart_a_token_reads_those_it_takes() -> None:
    matrices = [Initializer(f"{name}_{e}", (48, 64), 16) for name in "gud" for e in range(8)]
    names = [matrix.name for matrix in matrices]
    use = node("MoEDispatchSeparate", "x", "r", *names, domain="ai.gptoss", top_k=2)
    found = graph(use, initializers=tuple(matrices))
    assert weight_bytes(found) == WeightBytes(0, 2 * 3 * 48 * 64 * 2, 0)
    assert mixtures(found) == {(8, 2): 1}


def test_a_tied_embedding_is_read_in_full_and_once() -> None:
    uses = (
        node("Gather", "embedding", "ids"),
        node("Linear", "x", "embedding"),
        node("Linear", "y", "embedding"),
    )
    assert weight_bytes(graph(*uses, initializers=(EMBEDDING,))) == WeightBytes(100 * 64 * 2, 0, 0)


def test_gathering_along_another_axis_reads_everything() -> None:
    use = node("Gather", "embedding", "ids", axis=-1)
    assert weight_bytes(graph(use, initializers=(EMBEDDING,))).dense == EMBEDDING.nbytes


def test_a_model_without_experts_and_with_transposed_weights() -> None:
    """As GPT-2: two tables to gather from, of which one is tied, and weights (K, M)."""
    positions = Initializer("positions", (64, 64), 32)
    transposed = Initializer("transposed", (64, 192), 32)
    found = graph(
        node("Gather", "embedding", "ids"),
        node("Gather", "positions", "places"),
        node("Linear", "x", "transposed", "", domain="ai.gptoss", transposed=1),
        node("Linear", "y", "embedding", domain="ai.gptoss"),
        initializers=(EMBEDDING, positions, transposed),
    )
    dense = 100 * 64 * 2 + 64 * 192 * 4
    assert weight_bytes(found) == WeightBytes(dense, experts=0, embedding=64 * 4)
    assert not mixtures(found)


def test_mixtures_are_counted_by_their_experts() -> None:
    found = graph(
        node("Cast", "blocks", output="cast"),
        node("MoEDispatch", "x", "r", "cast", "", domain="ai.gptoss", top_k=2),
        node("QMoE", "x", "r", "int8", domain="com.microsoft", k=4),
        node("QMoE", "x", "r", "int8", domain="com.microsoft", k=4),
        initializers=(BLOCKS, INT8),
    )
    assert mixtures(found) == {(8, 2): 1, (96, 4): 2}


def test_experts_without_an_axis_are_named() -> None:
    use = node("MoEDispatch", "x", "r", "one", top_k=2)
    with pytest.raises(
        PackageError, match=r"one: found shape \(\), expected an expert axis of at least 2 first"
    ):
        weight_bytes(graph(use, initializers=(Initializer("one", (), 32),)))


@pytest.mark.parametrize(("past", "in_window"), [(0, 0), (1, 1), (7, 7), (8, 7), (1000, 7)])
def test_window_layers_show_their_window(past: int, in_window: int) -> None:
    layers = (FULL, WINDOW)
    assert cache_bytes(layers, "float32", past) == 4 * SLOT * (past + in_window)
    assert cache_bytes(layers, "bfloat16", past) == 2 * SLOT * (past + in_window)


def test_an_unknown_cache_type_is_named() -> None:
    with pytest.raises(PackageError, match="kv_dtype: found 'int3', expected one of float32"):
        cache_bytes((FULL,), "int3", 1)


def test_a_package_is_read_as_onnx_reads_it_and_its_weights_add_up(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tiny_package(tmp_path_factory)
    manifest = Manifest.read(folder)
    found = GraphFile.read(folder / manifest.graph)
    model = onnx.load(folder / manifest.graph, load_external_data=False).graph
    assert [(n.op, n.domain, list(n.inputs), list(n.outputs)) for n in found.nodes] == [
        (n.op_type, n.domain, list(n.input), list(n.output)) for n in model.node
    ]
    assert {name: list(entry.shape) for name, entry in found.initializers.items()} == {
        entry.name: list(entry.dims) for entry in model.initializer
    }
    external = {entry.name: _length(entry) for entry in model.initializer if entry.external_data}
    assert external == {name: found.initializers[name].nbytes for name in external}

    sizes = {
        name: count
        for name, count in external.items()
        if "embed" not in name and ".experts." not in name
    }
    sizes |= {
        entry.name: entry.nbytes
        for entry in found.initializers.values()
        if entry.name not in external
    }
    share = manifest.model["num_experts_per_tok"] / manifest.model["num_local_experts"]
    expected = WeightBytes(
        dense=sum(sizes.values()),
        experts=round(
            share * sum(count for name, count in external.items() if ".experts." in name)
        ),
        embedding=manifest.model["hidden_size"] * 2,
    )
    assert weight_bytes(found) == expected


def test_numbers_of_every_size_are_read(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, list[int]]] = {
        "a": (TensorProto.FLOAT, [0, 1]),
        "b": (TensorProto.BFLOAT16, [127, 128]),
        "c": (TensorProto.UINT4, [3, 1 << 20]),
    }
    tensors = [
        TensorProto(name=name, data_type=kind, dims=dims) for name, (kind, dims) in shapes.items()
    ]
    use = helper.make_node(
        "Use", list(shapes), ["y"], domain="test", axis=-3, top_k=1 << 40, other=0.5, texts=["a"]
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(helper.make_graph([use], "g", [], [], tensors)).SerializeToString()
    )
    found = GraphFile.read(path)
    assert dict(found.nodes[0].attributes) == {"axis": -3, "top_k": 1 << 40}
    assert [entry.nbytes for entry in found.initializers.values()] == [0, 2 * 127 * 128, 3 << 19]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x3a\xff\x01short", b"\x80"])
def test_no_model_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r"model\.onnx: not an ONNX model"):
        GraphFile.read(path)


def _length(tensor: Any) -> int:
    return int(next(entry.value for entry in tensor.external_data if entry.key == "length"))
