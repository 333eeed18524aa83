"""Graphs of strangers in the C++ client: external data are whole tensors of listed files, or the graph is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from gptoss_onnx.exporter import Package
from support.cpp_client import Client, Limits, build_client

pytestmark = [pytest.mark.cpp, pytest.mark.clients]


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The program and the probe, built once."""
    return build_client(tmp_path_factory)


@pytest.fixture
def spoilt(demo_package: Package, tmp_path: Path) -> Path:
    """A copy of the demo package for a test to change."""
    return Path(shutil.copytree(demo_package.folder, tmp_path / "package"))


def refused(client: Client, package: Path) -> str:
    """Return the line that a refused run prints; it says nothing else and soon."""
    result = client.run(package, "--prompt-tokens", "1", "--max-new-tokens", "1", limits=Limits())
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
    assert result.err.startswith("gptoss-generate: ")
    assert result.err[:-1].isprintable()
    return result.err


def load(package: Path) -> Any:
    return onnx.load(package / "model.onnx", load_external_data=False)


def external(model: Any) -> Any:
    """The first initializer with external data."""
    return next(tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL)


def change(package: Path, edit: Callable[[Any], object]) -> None:
    """Edit the graph of a package."""
    model = load(package)
    edit(model)
    (package / "model.onnx").write_bytes(model.SerializeToString())


def entry(tensor: Any, key: str, value: str) -> None:
    next(pair for pair in tensor.external_data if pair.key == key).value = value


def add_entry(tensor: Any, key: str, value: str) -> None:
    pair = tensor.external_data.add()
    pair.key, pair.value = key, value


def stranger(location: str = "model.safetensors", length: int = 4) -> Any:
    """A float whose data lie in another file."""
    tensor = onnx.TensorProto(name="stranger", dims=[1], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        add_entry(tensor, key, value)
    return tensor


@pytest.mark.parametrize(
    "location", ["etc/passwd", "/etc/passwd", "../secret", "tokenizer.json", "", "*/_ORT_MEM_ADDR_/*", "\x1b[2J"]
)
def test_data_lie_in_files_that_the_manifest_lists(client: Client, spoilt: Path, location: str) -> None:
    change(spoilt, lambda model: entry(external(model), "location", location))
    line = refused(client, spoilt)
    assert "expected a file that the manifest lists under weights" in line
    assert "tensor 'model.embed_tokens.weight'" in line


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("offset", "536849", "found 524288 bytes from 536849 on, expected exactly one tensor of"),
        ("offset", "0", "found 524288 bytes from 0 on, expected exactly one tensor of"),
        ("length", "262144", "found 262144 bytes from 536848 on, expected exactly one tensor of"),
        ("length", "9223372036854775807", "found 9223372036854775807 bytes from"),
        ("length", "9223372036854775808", "found '9223372036854775808' for a number of bytes"),
        ("offset", "-1", "found '-1' for a number of bytes"),
        ("offset", " 536848", "found ' 536848' for a number of bytes"),
        ("offset", "536848x", "found '536848x' for a number of bytes"),
        ("offset", "", "found '' for a number of bytes"),
    ],
)
def test_data_are_exactly_one_tensor(client: Client, spoilt: Path, key: str, value: str, line: str) -> None:
    change(spoilt, lambda model: entry(external(model), key, value))
    assert line in refused(client, spoilt)


@pytest.mark.parametrize("extra", ["checksum", "prepacked_0", "location"])
def test_entries_are_location_offset_and_length(client: Client, spoilt: Path, extra: str) -> None:
    change(spoilt, lambda model: add_entry(external(model), extra, "model.safetensors"))
    assert "external data of tensor" in refused(client, spoilt)


@pytest.mark.parametrize("missing", range(3))
def test_an_entry_that_is_missing(client: Client, spoilt: Path, missing: int) -> None:
    change(spoilt, lambda model: external(model).external_data.pop(missing))
    assert "that are not location, offset and length" in refused(client, spoilt)


def test_data_without_the_mark_of_external_ones(client: Client, spoilt: Path) -> None:
    def edit(model: Any) -> None:
        external(model).data_location = onnx.TensorProto.DEFAULT
        entry(next(tensor for tensor in model.graph.initializer if tensor.external_data), "location", "etc/passwd")

    change(spoilt, edit)
    assert "expected a file that the manifest lists" in refused(client, spoilt)


def _node_attribute(model: Any, **value: Any) -> None:
    model.graph.node.add(op_type="Constant", output=["stranger"]).attribute.add(name="value", **value)


def _function(model: Any) -> None:
    node = model.functions[0].node.add(op_type="Constant", output=["stranger"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=stranger())


def _graph(depth: int) -> Any:
    graph = onnx.GraphProto(name="inner", initializer=[stranger()])
    for _ in range(depth):
        node = onnx.NodeProto(op_type="If", attribute=[onnx.AttributeProto(name="then_branch", g=graph)])
        graph = onnx.GraphProto(name="outer", node=[node])
    return graph


def _sparse() -> Any:
    return onnx.SparseTensorProto(values=stranger(), indices=onnx.TensorProto(), dims=[1])


def _indices() -> Any:
    return onnx.SparseTensorProto(values=onnx.TensorProto(), indices=stranger(), dims=[1])


HIDING_PLACES: dict[str, Callable[[Any], object]] = {
    "attribute t": lambda model: _node_attribute(model, t=stranger()),
    "attribute tensors": lambda model: _node_attribute(model, tensors=[stranger()]),
    "attribute g": lambda model: _node_attribute(model, g=_graph(0)),
    "attribute g in g": lambda model: _node_attribute(model, g=_graph(5)),
    "attribute graphs": lambda model: _node_attribute(model, graphs=[_graph(0)]),
    "attribute sparse_tensor": lambda model: _node_attribute(model, sparse_tensor=_sparse()),
    "attribute sparse_tensors": lambda model: _node_attribute(model, sparse_tensors=[_indices()]),
    "sparse initializer": lambda model: model.graph.sparse_initializer.append(_sparse()),
    "indices of a sparse initializer": lambda model: model.graph.sparse_initializer.append(_indices()),
    "function": _function,
    "default of a function": lambda model: model.functions[0].attribute_proto.add(name="a", t=stranger()),
    "training initialization": lambda model: model.training_info.add(initialization=_graph(0)),
    "training algorithm": lambda model: model.training_info.add(algorithm=_graph(1)),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_only_initializers_of_the_main_graph_have_external_data(client: Client, spoilt: Path, place: str) -> None:
    change(spoilt, HIDING_PLACES[place])
    assert "external data of a tensor that is no initializer of the main graph" in refused(client, spoilt)


def varint(number: int) -> bytes:
    bytes_ = bytearray()
    while number > 0x7F:
        bytes_.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*bytes_, number])


def field(number: int, value: bytes | int) -> bytes:
    """One field of a message of protocol buffers."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def nested(depth: int) -> bytes:
    """Graphs inside the nodes of graphs."""
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return graph


# A tensor that says it is external in a number that other readers cut off to 32 bits: to 1.
CUT_OFF = field(8, b"cut") + field(14, 2**32 + 1)

TAILS = [
    (b"\xff" * 400_000, "a number of more than 64 bits"),
    (field(7, b"\xff" * 400_000), "a number of more than 64 bits"),
    (b"\x08" + b"\x80" * 9 + b"\x02", "a number of more than 64 bits"),
    (b"\x08", "the end inside a field"),
    (b"\x3a\xff\xff\xff\xff\x0f", "the end inside a field"),
    (b"\x3a" + b"\xff" * 9 + b"\x01", "the end inside a field"),
    (b"\x00\x01", "the field key 0"),
    (b"\x07", "the field key 7"),
    (varint(2**32 | 7 << 3 | 2) + b"\x00", "the field key 4294967354"),
    (b"\x0b\x0c", "wire type 3"),
    (b"\x0e", "wire type 6"),
    (field(7, 5), "the number 5 for a message"),
    (field(7, b""), "2 main graphs"),
    (field(20, field(1, nested(20_000))), "more than 100 messages inside each other"),
    (field(25, field(7, field(5, field(5, CUT_OFF)))), "not location, offset and length"),
]


@pytest.mark.parametrize(("tail", "line"), TAILS, ids=[line for _, line in TAILS])
def test_bytes_after_a_good_graph(client: Client, spoilt: Path, tail: bytes, line: str) -> None:
    path = spoilt / "model.onnx"
    path.write_bytes(path.read_bytes() + tail)
    assert f"model.onnx: found {line}" in refused(client, spoilt).replace("external data of tensor 'cut' that are ", "")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "found 0 main graphs"),
        (b"\x7fELF" + bytes(100), "expected an ONNX model of this project"),
        (b"\x0a\x06\x00\x00ORTM" + field(7, b""), "version of the ONNX OperatorSet"),  # read as ONNX, not as ORT
    ],
    ids=["empty", "elf", "ort-format"],
)
def test_files_that_are_no_graph(client: Client, spoilt: Path, content: bytes, line: str) -> None:
    (spoilt / "model.onnx").write_bytes(content)
    assert line in refused(client, spoilt)


def test_a_graph_that_is_too_large(client: Client, spoilt: Path) -> None:
    with (spoilt / "model.onnx").open("ab") as file:
        file.truncate(1 << 40)  # no byte on the disk
    assert "model.onnx: found more than 256000000 bytes, expected at most that many" in refused(client, spoilt)


def test_a_graph_that_fails_while_it_runs_says_one_line(client: Client, spoilt: Path) -> None:
    def edit(model: Any) -> None:
        gather = next(node for node in model.graph.node if node.op_type == "Gather")
        gather.attribute.add(name="axis", type=onnx.AttributeProto.INT, i=1)

    change(spoilt, edit)
    refused(client, spoilt)  # ONNX Runtime's own red lines are not there
