"""ONNX files of strangers in the C++ client: they read tensors of the listed weight files, and
nothing else.

Files that are no ONNX model are in test_cpp_hostile_protobuf.py. The cases are those of
tests/runtime/test_package_files.py, which tries them on the Python session.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support.cpp_client import Client, change_manifest
from support.fake_package import write_fake_package
from support.stranger_graph import Edit, change_graph, external

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

PROMPT = ("--prompt-tokens", "1,2", "--max-new-tokens", "2")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package whose one external tensor is `bias`, in weights.safetensors."""
    return write_fake_package(tmp_path / "package")


def bias(model: onnx.ModelProto) -> dict[str, onnx.StringStringEntryProto]:
    """Return the entries of the one tensor whose data are external, by key."""
    (tensor,) = (entry for entry in model.graph.initializer if entry.external_data)
    return {entry.key: entry for entry in tensor.external_data}


def test_the_package_runs_as_it_is(client: Client, package: Path) -> None:
    result = client.run(package, *PROMPT)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    "location", ["secret", "/etc/passwd", "../outside", "manifest.json", "*/_ORT_MEM_ADDR_/*", ""]
)
def test_a_graph_reads_no_file_that_is_not_listed(
    client: Client, package: Path, location: str
) -> None:
    for path in (package / "secret", package.parent / "outside"):
        shutil.copy(package / "weights.safetensors", path)
    change_graph(package, lambda model: model.graph.initializer.append(external(location)))
    line = client.refused(package, *PROMPT)
    assert (
        f"tensor 'stolen': found its data in '{location}', expected a file that the manifest lists"
        in line
    )


def test_a_graph_reads_no_file_of_the_references_folder(
    client: Client, package: Path, tmp_path: Path
) -> None:
    """The root is where the weights are; a graph may not look around there."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "secret").write_text("of somebody else")
    (package / "weights.safetensors").rename(root / "weights.safetensors")
    change_manifest(package, "weights", "mode", value="reference")
    change_manifest(package, "weights", "root", value=str(root))
    assert client.run(package, *PROMPT).code == 0
    change_graph(package, lambda model: model.graph.initializer.append(external("secret")))
    assert "tensor 'stolen': found its data in 'secret', expected" in client.refused(
        package, *PROMPT
    )


@pytest.mark.parametrize(("offset", "length"), [(0, 8), (8, 1), (0, 10**6), (2**63 - 1, 2**63 - 1)])
def test_external_data_are_no_header(
    client: Client, package: Path, offset: int, length: int
) -> None:
    tensor = external("weights.safetensors", offset, length)
    change_graph(package, lambda model: model.graph.initializer.append(tensor))
    line = client.refused(package, *PROMPT)
    assert (
        f"'stolen': found {length} bytes from {offset} on, expected one tensor, or a part of one,"
        in line
    )


@pytest.mark.parametrize(("key", "change"), [("offset", -4), ("offset", 4), ("length", 4)])
def test_external_data_are_no_more_than_one_tensor(
    client: Client, package: Path, key: str, change: int
) -> None:
    def shift(model: onnx.ModelProto) -> None:
        entry = bias(model)[key]
        entry.value = str(int(entry.value) + change)

    change_graph(package, shift)
    assert "tensor 'bias': found " in (line := client.refused(package, *PROMPT))
    assert "expected one tensor, or a part of one, of" in line


@pytest.mark.parametrize("value", ["-1", "", "+0", "0x0", "1e2", " 72", "72 ", "9" * 30, "7\x002"])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_places_are_plain_numbers(client: Client, package: Path, key: str, value: str) -> None:
    change_graph(package, lambda model: setattr(bias(model)[key], "value", value))
    assert "for a number of bytes, expected an ONNX model of this project" in client.refused(
        package, *PROMPT
    )


def _prepacked(model: onnx.ModelProto) -> None:
    """ONNX Runtime would read prepacked weights at offsets that such an entry gives."""
    model.graph.initializer[-1].external_data.add(key="prepacked_0", value="key|0;100;1")


def _no_offset(model: onnx.ModelProto) -> None:
    bias(model)["offset"].key = "checksum"


def _nothing_but_the_mark(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="c", data_location=TensorProto.EXTERNAL))


@pytest.mark.parametrize("change", [_prepacked, _no_offset, _nothing_but_the_mark])
def test_external_data_have_these_entries_alone(
    client: Client, package: Path, change: Edit
) -> None:
    change_graph(package, change)
    assert "that are not location, offset and length" in client.refused(package, *PROMPT)


def test_external_data_have_each_entry_once(client: Client, package: Path) -> None:
    """A reader that takes the first and one that takes the last would see two files."""
    add = {"key": "location", "value": "/etc/passwd"}
    change_graph(
        package, lambda model: model.graph.initializer[-1].external_data.add(**add) and None
    )
    assert "external data of tensor 'bias' with an entry twice" in client.refused(package, *PROMPT)


def _in_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=external()))


def _in_attribute_of_several(model: onnx.ModelProto) -> None:
    model.graph.node.append(
        helper.make_node("Constant", [], ["unused"], values=[external(), external()])
    )


def _in_subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external()])
    model.graph.node.append(helper.make_node("If", [], [], then_branch=inner))


def _in_subgraph_of_several(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external()])
    model.graph.node.append(helper.make_node("If", [], [], branches=[inner]))


def _in_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["x"], value=external())
    model.functions.append(helper.make_function("own", "f", [], ["x"], [node], []))


def _in_function_default(model: onnx.ModelProto) -> None:
    default = helper.make_attribute("value", external())
    model.functions.append(onnx.FunctionProto(name="f", domain="own", attribute_proto=[default]))


def _in_sparse_values(model: onnx.ModelProto) -> None:
    indices = numpy_helper.from_array(np.zeros(4, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(external(), indices, [4]))


def _in_sparse_indices(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.zeros(4, np.float32), "v")
    model.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=values, indices=external(), dims=[4])
    )


def _in_sparse_attribute(model: onnx.ModelProto) -> None:
    sparse = onnx.SparseTensorProto(values=external(), dims=[4])
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], sparse_value=sparse))


def _in_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(external())


def _only_marked(model: onnx.ModelProto) -> None:
    marked = TensorProto(name="c", data_location=TensorProto.EXTERNAL)
    for key in ("location", "offset", "length"):
        marked.external_data.add(key=key, value="0")
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=marked))


@pytest.mark.parametrize(
    "hide",
    [
        _in_attribute,
        _in_attribute_of_several,
        _in_subgraph,
        _in_subgraph_of_several,
        _in_function,
        _in_function_default,
        _in_sparse_values,
        _in_sparse_indices,
        _in_sparse_attribute,
        _in_training,
        _only_marked,
    ],
)
def test_nothing_but_initializers_has_external_data(
    client: Client, package: Path, hide: Edit
) -> None:
    change_graph(package, hide)
    line = client.refused(package, *PROMPT)
    assert "external data of a tensor that is no initializer of the main graph" in line


def test_a_graph_that_fails_when_it_runs(client: Client, package: Path) -> None:
    def tie(model: onnx.ModelProto) -> None:
        """Reshape the tokens to a size that they do not have."""
        shape = numpy_helper.from_array(np.array([7, 7]), "seven")
        model.graph.initializer.append(shape)
        model.graph.node.insert(0, helper.make_node("Reshape", ["input_ids", "seven"], ["squared"]))
        model.graph.node.append(helper.make_node("Identity", ["squared"], ["more"]))
        model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.INT64, [7, 7]))

    change_graph(package, tie)
    assert "model.onnx: found a graph that ONNX Runtime refuses, expected one" in client.refused(
        package, *PROMPT
    )


def test_a_graph_without_what_the_manifest_names(client: Client, package: Path) -> None:
    change_graph(package, lambda model: setattr(model.graph.input[0], "name", "other"))
    client.refused(package, *PROMPT)


def test_layers_of_the_cache_have_names_of_their_own(client: Client, package: Path) -> None:
    manifest: dict[str, Any] = json.loads((package / "manifest.json").read_text())
    change_manifest(package, "cache", value=manifest["cache"] * 2)
    line = client.refused(package, *PROMPT)
    assert (
        "cache/3/past_key: found 'past_key_values.0.key' again, expected a name of its own" in line
    )


def test_logits_larger_than_the_memory(client: Client, package: Path) -> None:
    """A vocabulary that the graph leaves open may be so large that its rows do not fit."""

    def leave_open(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "rows"
        model.graph.node.append(
            helper.make_node("Cast", ["past_lengths"], ["chosen"], to=TensorProto.BOOL)
        )
        model.graph.node.append(
            helper.make_node("Compress", ["rows", "chosen"], ["logits"], axis=2)
        )
        model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "V"

    change_manifest(package, "vocab_size", value=1 << 24)
    change_graph(package, leave_open)
    case = {"name": "large", "token_ids": [1] * 32, "greedy": [1], "positions": list(range(32))}
    (package / "golden").mkdir()
    (package / "golden" / "golden.json").write_text(
        json.dumps({"sampled_indices": [0], "cases": [case]})
    )
    assert "memory: found too little, expected room for" in client.refused(package)
