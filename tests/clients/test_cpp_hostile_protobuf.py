"""Bytes of strangers in place of an ONNX file, in the C++ client: what protocol buffers would read
in two ways, or at great cost, is refused in one line.
"""

from pathlib import Path

import onnx
import pytest
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from support.cpp_client import Client, change_manifest
from support.fake_package import write_fake_package
from support.stranger_graph import external

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

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
    return write_fake_package(tmp_path / "package")


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
