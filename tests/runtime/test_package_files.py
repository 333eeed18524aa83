"""Which files a package can make the Python session open: its own, and tensors of the weight files
it lists.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gptoss_onnx.errors import PackageError
from gptoss_onnx.runtime import Session, open_package
from gptoss_onnx.runtime.graph_file import GRAPH_LIMIT, GraphFile
from support.fake_package import write_fake_package

Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_fake_package(tmp_path / "package")


def change_manifest(package: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = package / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def change_graph(package: Path, change: Edit) -> None:
    path = package / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def refused(package: Path) -> str:
    with pytest.raises(PackageError) as caught:
        Session.open(package)
    text = str(caught.value)
    assert "\n" not in text
    return text


def external(name: str, location: str, offset: int, length: int) -> TensorProto:
    """Return an initializer of bytes that lie in another file."""
    tensor = TensorProto(
        name=name, data_type=TensorProto.UINT8, dims=[length], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_a_root_is_of_mode_reference_alone(package: Path) -> None:
    change_manifest(package, lambda document: document["weights"].update(root="/"))
    assert "weights.root: found '/', expected null, since weights.mode is link" in refused(package)


def test_a_graph_reads_no_file_that_is_not_listed(package: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    change_manifest(
        package, lambda document: document["weights"].update(mode="reference", root=str(tmp_path))
    )
    # The listed file, found below the new root, and then the one that no list names.
    os.link(package / "weights.safetensors", tmp_path / "weights.safetensors")
    change_graph(
        package, lambda model: model.graph.initializer.append(external("stolen", "secret", 0, 4))
    )
    assert "'stolen' reads the file 'secret', expected one of weights.files" in refused(package)


@pytest.mark.parametrize(("offset", "length"), [(0, 8), (8, 1), (-4, 0), (0, 4)])
def test_external_data_are_those_of_one_tensor(package: Path, offset: int, length: int) -> None:
    """Neither the header, nor what lies around a tensor; the last two move and stretch the right
    one.
    """

    def point(model: onnx.ModelProto) -> None:
        (tensor,) = (entry for entry in model.graph.initializer if entry.external_data)
        entries = {entry.key: entry for entry in tensor.external_data}
        if offset > 0 or length > 0:
            model.graph.initializer.append(external("other", "weights.safetensors", offset, length))
        else:
            entries["offset"].value = str(int(entries["offset"].value) + offset)
            entries["length"].value = str(int(entries["length"].value) + length)

    change_graph(package, point)
    assert "expected one tensor of that file, or a part of one" in refused(package)


def _in_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.add(
        op_type="Constant",
        output=["unused"],
        attribute=[helper.make_attribute("value", external("c", "/etc/passwd", 0, 4))],
    )


def _in_subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external("c", "/etc/passwd", 0, 4)])
    model.graph.node.add(op_type="If", attribute=[helper.make_attribute("then_branch", inner)])


def _in_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["x"], value=external("c", "/etc/passwd", 0, 4))
    model.functions.append(helper.make_function("own", "f", [], ["x"], [node], []))


def _in_function_default(model: onnx.ModelProto) -> None:
    default = helper.make_attribute("value", external("c", "/etc/passwd", 0, 4))
    model.functions.append(onnx.FunctionProto(name="f", domain="own", attribute_proto=[default]))


def _in_sparse(model: onnx.ModelProto) -> None:
    values, indices = (
        external("c", "/etc/passwd", 0, 4),
        numpy_helper.from_array(np.zeros(4, np.int64), "i"),
    )
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


def _only_marked(model: onnx.ModelProto) -> None:
    model.graph.node.add(
        op_type="Constant",
        attribute=[
            helper.make_attribute(
                "value", TensorProto(name="c", data_location=TensorProto.EXTERNAL)
            )
        ],
    )


@pytest.mark.parametrize(
    "hide",
    [_in_attribute, _in_subgraph, _in_function, _in_function_default, _in_sparse, _only_marked],
)
def test_nothing_but_initializers_has_external_data(package: Path, hide: Edit) -> None:
    change_graph(package, hide)
    assert "a tensor that is not an initializer of the main graph has external data" in refused(
        package
    )


def test_external_data_have_no_other_entries(package: Path) -> None:
    """ONNX Runtime would read prepacked weights at offsets that such an entry gives."""

    def prepack(model: onnx.ModelProto) -> None:
        (tensor,) = (entry for entry in model.graph.initializer if entry.external_data)
        tensor.external_data.add(key="prepacked_0", value="key|0;100;1")

    change_graph(package, prepack)
    assert "length, location, offset, prepacked_0, expected location, offset and length" in refused(
        package
    )


def test_a_second_graph_is_refused(package: Path) -> None:
    """Protocol buffers merge a field that appears twice: a reader of the first alone would miss the
    second.
    """
    path = package / "model.onnx"
    more = onnx.ModelProto()
    more.graph.initializer.append(external("stolen", "/etc/passwd", 0, 4))
    path.write_bytes(path.read_bytes() + more.SerializeToString())
    assert "found 2 fields 7, expected one" in refused(package)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../model.onnx", "sub/model.onnx", "a\\b", "./..", "c:d", "*", "a\x1bb"]
)
def test_names_are_plain(package: Path, name: str) -> None:
    change_manifest(package, lambda document: document.update(graph=f"{name}.onnx"))
    assert "expected a plain file name" in refused(package)
    change_manifest(
        package, lambda document: document.update(graph="model.onnx", tokenizer_files=[name])
    )
    assert "tokenizer_files[0]" in refused(package)
    change_manifest(package, lambda document: document.update(tokenizer_files=[]))
    change_manifest(package, lambda document: document["weights"]["files"][0].update(name=name))
    assert "weights.files[0].name" in refused(package)


def test_a_graph_is_an_onnx_file(package: Path) -> None:
    (package / "model.onnx").rename(package / "model.ort")
    change_manifest(package, lambda document: document.update(graph="model.ort"))
    assert "graph: found 'model.ort', expected a plain file name that ends in .onnx" in refused(
        package
    )


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "generation_config.json"])
def test_files_are_no_links_out_of_the_package(package: Path, tmp_path: Path, name: str) -> None:
    (package / "generation_config.json").write_text("{}")
    (package / name).rename(tmp_path / name)
    (package / name).symlink_to(tmp_path / name)
    if name == "generation_config.json":
        with pytest.raises(PackageError, match="found a link to"):
            open_package(package).eos_tokens  # noqa: B018
    else:
        assert "found a link to" in refused(package)


@pytest.mark.parametrize(
    "name", ["manifest.json", "model.onnx", "weights.safetensors", "generation_config.json"]
)
@pytest.mark.timeout(20)
def test_files_are_regular(package: Path, name: str) -> None:
    """Opening a FIFO waits for a writer, and reading /dev/zero never ends."""
    (package / name).unlink(missing_ok=True)
    os.mkfifo(package / name)
    if name == "generation_config.json":
        with pytest.raises(PackageError, match="found something else than a file"):
            open_package(package).eos_tokens  # noqa: B018
    else:
        assert (
            "FIFO" in (text := refused(package))
            or "something else than a file" in text
            or "not a saf" in text
        )


@pytest.mark.timeout(20)
def test_a_device_is_no_weight_file(package: Path) -> None:
    """In mode reference a manifest could name any file of the machine."""
    change_manifest(
        package, lambda document: document["weights"].update(mode="reference", root="/dev")
    )
    change_manifest(package, lambda document: document["weights"]["files"][0].update(name="zero"))
    assert "/dev/zero: changed since the package was written: found 0 bytes" in refused(package)


def test_links_in_a_circle_are_refused(package: Path) -> None:
    (package / "model.onnx").unlink()
    (package / "model.onnx").symlink_to("model.onnx")
    assert "model.onnx: cannot be followed" in refused(package)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff" * 400_000, "found a number of more than 64 bits"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "found the end inside a field"),
        (b"\x3a\x80", "found the end inside a number"),
        (b"\x3b", "found wire type 3"),
        (b"\xff\xff\xff\xff\x7f", "found the field key"),
        (b"\x3a\x02\x0a\x00", "found a node of 0 operators"),
        (b"\x3a\x06\x2a\x04\x42\x02\xff\xfe", "can't decode byte"),
        (b"\x38\x01", "found the number 1, expected bytes"),
        (b"", "found 0 fields 7"),
        (b"\x3a\x80\x89\x7a" + b"\x12\x00" * 1_000_000, "found more than 1000000 fields"),
        (b"\x3a\x06\x12\x04ORTM", "ONNX Runtime's own format"),
        (b"\x00" * (GRAPH_LIMIT + 1), f"found more than {GRAPH_LIMIT} bytes"),
    ],
)
def test_files_that_are_no_graph(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=message):
        GraphFile.read(path)


def test_graphs_are_nested_so_deep_and_no_deeper(package: Path) -> None:
    def nest(model: onnx.ModelProto) -> None:
        inner = helper.make_graph([], "innermost", [], [])
        for _ in range(30):
            node = helper.make_node("If", [], [], then_branch=inner)
            inner = helper.make_graph([node], "outer", [], [])
        model.graph.node.extend(inner.node)

    change_graph(package, nest)
    assert "its graphs are nested more than 20 deep" in refused(package)
