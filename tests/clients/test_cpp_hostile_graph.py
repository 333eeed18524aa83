"""ONNX files of strangers in the C++ client: they read tensors of the listed weight files, and
nothing else.

The cases are those of tests/runtime/test_package_files.py, which tries them on the Python session.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from support.cpp_client import Client, change_manifest
from support.fake_package import VOCAB, write_fake_package

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

Edit = Callable[[onnx.ModelProto], None]
PROMPT = ("--prompt-tokens", "1,2", "--max-new-tokens", "2")
MODEL_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
GRAPH_NODE = GraphProto.DESCRIPTOR.fields_by_name["node"].number
NODE_ATTRIBUTE = NodeProto.DESCRIPTOR.fields_by_name["attribute"].number
MODEL_FUNCTIONS = onnx.ModelProto.DESCRIPTOR.fields_by_name["functions"].number
FUNCTION_NODE = onnx.FunctionProto.DESCRIPTOR.fields_by_name["node"].number
ATTRIBUTE_TENSOR = onnx.AttributeProto.DESCRIPTOR.fields_by_name["t"].number
TENSOR_DATA_LOCATION = TensorProto.DESCRIPTOR.fields_by_name["data_location"].number
ATTRIBUTE_GRAPH = AttributeProto.DESCRIPTOR.fields_by_name["g"].number


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package whose one external tensor is `bias`, in weights.safetensors."""
    folder = write_fake_package(tmp_path / "package")
    model = {"vocab_size": VOCAB, "max_position_embeddings": 64, "eos_token_id": 5}
    change_manifest(folder, "model", value=model)
    return folder


def change_graph(package: Path, change: Edit) -> None:
    path = package / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def external(location: str = "/etc/passwd", offset: int = 0, length: int = 4) -> TensorProto:
    """Return a tensor of bytes that lie in another file."""
    tensor = TensorProto(name="stolen", data_type=TensorProto.UINT8, dims=[length])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


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
def test_external_data_are_no_header_and_no_part(
    client: Client, package: Path, offset: int, length: int
) -> None:
    tensor = external("weights.safetensors", offset, length)
    change_graph(package, lambda model: model.graph.initializer.append(tensor))
    line = client.refused(package, *PROMPT)
    assert (
        f"'stolen': found {length} bytes from {offset} on, expected exactly one tensor of" in line
    )


@pytest.mark.parametrize(
    ("key", "change"), [("offset", -4), ("offset", 4), ("length", -4), ("length", 4)]
)
def test_external_data_are_one_whole_tensor(
    client: Client, package: Path, key: str, change: int
) -> None:
    def shift(model: onnx.ModelProto) -> None:
        entry = bias(model)[key]
        entry.value = str(int(entry.value) + change)

    change_graph(package, shift)
    assert "tensor 'bias': found " in (line := client.refused(package, *PROMPT))
    assert "expected exactly one tensor of" in line


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


def test_a_second_graph_is_refused(client: Client, package: Path) -> None:
    """Protocol buffers merge a field that appears twice: a reader of the first alone would miss the
    second.
    """
    path = package / "model.onnx"
    more = onnx.ModelProto()
    more.graph.initializer.append(external("weights.safetensors"))
    path.write_bytes(path.read_bytes() + more.SerializeToString())
    assert "found 2 main graphs, expected an ONNX model" in client.refused(package, *PROMPT)


@pytest.mark.parametrize("name", ["model.ort", "model", "model.onnx.ort", "model.ONNX", ".onnx"])
def test_a_graph_is_an_onnx_file(client: Client, package: Path, name: str) -> None:
    (package / "model.onnx").rename(package / name)
    change_manifest(package, "graph", value=name)
    assert f"graph: found '{name}', expected a name that ends in .onnx" in client.refused(
        package, *PROMPT
    )


def varint(number: int) -> bytes:
    """Return a number as protocol buffers write it."""
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def field(number: int, content: bytes) -> bytes:
    """Return a field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def nested(levels: int) -> bytes:
    """Return a model whose graph holds a node that holds a graph, and so on."""
    graph = b""
    for _ in range(levels):
        graph = field(GRAPH_NODE, field(NODE_ATTRIBUTE, field(ATTRIBUTE_GRAPH, graph)))
    return field(MODEL_GRAPH, graph)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\xff" * 400_000, "found a number of more than 64 bits"),
        (b"\x3a" + b"\xff" * 9 + b"\x02", "found a number of more than 64 bits"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "found the end inside a field"),
        (b"\x3a\x80", "found the end inside a field"),
        (b"\x3b", "found wire type 3"),
        (b"\x02\x00", "found the field key 2"),
        (b"\xff\xff\xff\xff\x7f", "found the field key"),
        (b"\x38\x01", "found the number 1 for a message"),
        (b"", "found 0 main graphs"),
        (b"\x3a\x06\x12\x04ORTM", "found a model in ONNX Runtime's own format"),
        (b"ORTMORTM", "found a model in ONNX Runtime's own format"),
        (nested(34), "found more than 100 messages inside each other"),
        (nested(2000), "found more than 100 messages inside each other"),
        (field(MODEL_GRAPH, b"\x0a\x00" * 3_999_000), "found more than 1000000 fields"),
        (bytes(8_000_001), "found more than 8000000 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_graph(client: Client, package: Path, content: bytes, found: str) -> None:
    (package / "model.onnx").write_bytes(content)
    assert f"model.onnx: {found}" in client.refused(package, *PROMPT)


def test_a_mark_that_other_readers_cut_off_to_one(client: Client, package: Path) -> None:
    """A data_location of 2^32 + 1 is 1, external, to who reads 32 bits of it."""
    mark = varint(TENSOR_DATA_LOCATION << 3) + varint(2**32 + 1)
    constant = field(NODE_ATTRIBUTE, field(ATTRIBUTE_TENSOR, mark))
    path = package / "model.onnx"
    path.write_bytes(path.read_bytes() + field(MODEL_FUNCTIONS, field(FUNCTION_NODE, constant)))
    assert "that are not location, offset and length" in client.refused(package, *PROMPT)


OPSET = onnx.ModelProto(
    ir_version=10, opset_import=[helper.make_opsetid("", 24)]
).SerializeToString()


@pytest.mark.parametrize(
    "content",
    [
        nested(30),
        field(MODEL_GRAPH, b"\x0a\x00" * 900_000),
        field(MODEL_GRAPH, b"\x0a\x00"),
        field(MODEL_GRAPH, b""),
    ],
    ids=["deep", "many nodes", "a node of nothing", "nothing"],
)
def test_graphs_that_onnx_runtime_refuses(client: Client, package: Path, content: bytes) -> None:
    (package / "model.onnx").write_bytes(OPSET + content)
    line = client.refused(package, *PROMPT)
    assert (
        "model.onnx: found a graph that ONNX Runtime refuses, expected one" in line
        or "graph: found no 'input_ids'" in line
    )


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

    change_manifest(package, "model", "vocab_size", value=1 << 24)
    change_graph(package, leave_open)
    case = {"name": "large", "token_ids": [1] * 32, "greedy": [1], "positions": list(range(32))}
    (package / "golden").mkdir()
    (package / "golden" / "golden.json").write_text(
        json.dumps({"sampled_indices": [0], "cases": [case]})
    )
    assert "memory: found too little, expected room for" in client.refused(package)
