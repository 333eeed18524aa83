"""The manifest's JSON Schema describes what the exporter writes and the dataclasses hold, no more,
no less.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

import gptoss_onnx
from gptoss_onnx import manifest
from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import FORMAT_VERSION, MANIFEST_NAME, Manifest
from support.tiny_package import tiny_package

SCHEMA: dict[str, Any] = json.loads(
    (Path(gptoss_onnx.__file__).parent / "manifest.schema.json").read_text()
)
HEAD = {"format", "format_version"}
OPTIONAL = {"options", "stage", "adapters"}  # of older exporters; of whole models; of plain ones


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    text = (tiny_package(tmp_path_factory) / MANIFEST_NAME).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_an_exported_manifest_is_valid(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


@pytest.mark.parametrize(
    "kind",
    [
        "TensorSpec",
        "CacheLayer",
        "OpUse",
        "WeightFile",
        "Weights",
        "RoundedWeights",
        "TensorError",
        "Options",
        "Stage",
        "Adapter",
    ],
)
def test_every_field_is_in_the_schema_and_nothing_else(kind: str) -> None:
    names = {field.name for field in dataclasses.fields(getattr(manifest, kind))}
    part = SCHEMA["$defs"][kind]
    optional = {
        field.name
        for field in dataclasses.fields(getattr(manifest, kind))
        if field.default is not dataclasses.MISSING
    }
    assert set(part["properties"]) == names
    assert set(part["required"]) == names - optional
    assert part["additionalProperties"] is False


def test_the_document_has_the_fields_of_the_manifest_and_its_head() -> None:
    names = {field.name for field in dataclasses.fields(Manifest)} | HEAD
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) | OPTIONAL == names
    assert SCHEMA["properties"]["format_version"]["const"] == FORMAT_VERSION
    assert SCHEMA["properties"]["format"]["const"] == manifest.FORMAT


def _without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.pop(key)


SPOILERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "unknown key": lambda document: document.update(surprise=1),
    "missing key": _without("lossy"),
    "newer version": lambda document: document.update(format_version=FORMAT_VERSION + 1),
    "name outside the folder": lambda document: document["weights"]["files"][0].update(
        name="../x.safetensors"
    ),
    "absolute name": lambda document: document.update(graph="/model.onnx"),
    "short hash": lambda document: document["weights"]["files"][0].update(header_sha256="abc"),
    "root without reference": lambda document: document["weights"].update(root="/somewhere"),
    "reference without root": lambda document: document["weights"].update(mode="reference"),
    "unknown cache dtype": lambda document: document.update(kv_dtype="int8"),
    "graph of another kind": lambda document: document.update(graph="model.ort"),
    "tokenizer file in a folder": lambda document: document.update(
        tokenizer_files=["a/tokenizer.json"]
    ),
    "negative heads": lambda document: document["cache"][0].update(kv_heads=-1),
    "no head dimension": lambda document: document["cache"][0].update(head_dim=0),
    "heads beyond 32 bits": lambda document: document["cache"][0].update(kv_heads=2**63),
    "negative window": lambda document: document["cache"][0].update(window=-8),
    "no layers": lambda document: document.update(cache=[]),
    "negative size": lambda document: document["weights"]["files"][0].update(size=-5),
    "unknown dtype": lambda document: document["inputs"][0].update(dtype="complex64"),
    "empty shape": lambda document: document["outputs"][0].update(shape=[]),
    "negative dimension": lambda document: document["outputs"][0].update(shape=[-1]),
    "no vocabulary": lambda document: document.update(vocab_size=0),
    "no position": lambda document: document.update(longest=0),
    "an end token below 0": lambda document: document.update(eos_tokens=[1, -1]),
    "a model that is no object": lambda document: document.update(model=[]),
    "rounded in a way that nobody knows": lambda document: document.update(
        rounded=[{"kind": "dense-int3", "file": "model.safetensors", "block": 32}]
    ),
    "negative sink tokens": lambda document: document["cache"][0].update(sink_tokens=-1),
    "sink tokens of a full layer": lambda document: document["cache"][0].update(
        window=0, sink_tokens=1
    ),
    "control character in a name": lambda document: document["inputs"][0].update(name="a\0b"),
    "an adapter without hashes": lambda document: document.update(
        adapters=[
            {
                "name": "a",
                "mode": "merge",
                "base": None,
                "config_sha256": "0" * 64,
                "weights_sha256": "",
            }
        ]
    ),
    "a list of no adapters that is an object": lambda document: document.update(adapters={}),
    "terminal sequence": lambda document: document.update(lossy=["\x1b[31mred"]),
    "ops without a name": lambda document: document["ops"][0].update(name=""),
    "an option that nobody knows": lambda document: document["options"].update(speed="most"),
    "an option with another value": lambda document: document["options"].update(dense="int3"),
    "options in part": lambda document: document["options"].pop("provider"),
}
# What a reader checks and a schema cannot say.
BEYOND_THE_SCHEMA: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an input twice": lambda document: document["inputs"].append(document["inputs"][0]),
    "a cache tensor twice": lambda document: document["cache"].append(document["cache"][0]),
    "a weight file twice": lambda document: document["weights"]["files"].append(
        document["weights"]["files"][0]
    ),
    "a name without end": lambda document: document["inputs"][0].update(name="x" * 2000),
    "a path of a copy": lambda document: document["weights"]["files"][0].update(
        name="sub/x.safetensors"
    ),
    "an own file of mode reference": lambda document: (
        document["weights"].update(mode="reference", root="/w"),
        document["weights"]["files"][0].update(origin="export"),
    ),
    "a root that is no absolute folder": lambda document: document["weights"].update(
        mode="reference", root="w"
    ),
    "as many sink tokens as the window has": lambda document: document["cache"][0].update(
        window=4, sink_tokens=4
    ),
    "sink tokens of target ort": lambda document: (
        document.update(target="ort"),
        document["cache"][0].update(window=4, sink_tokens=1),
    ),
    "options of another target": lambda document: document["options"].update(target="ort"),
    "options with another cache": lambda document: document["options"].update(kv_dtype="float16"),
    "a rounded file that is not listed": lambda document: document["rounded"].append(
        {"kind": "dense-int8", "file": "other.safetensors", "block": 32}
    ),
    "a rounded file of the checkpoint": lambda document: document["rounded"].append(
        {"kind": "dense-int8", "file": "model.safetensors", "block": 32}
    ),
}


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS.keys())
def test_the_schema_refuses(
    spoil: Callable[[dict[str, Any]], Any], document: dict[str, Any]
) -> None:
    spoilt = json.loads(json.dumps(document))
    spoil(spoilt)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(spoilt)


@pytest.mark.parametrize("name", [*SPOILERS, *BEYOND_THE_SCHEMA])
def test_a_reader_refuses(name: str, document: dict[str, Any], tmp_path: Path) -> None:
    spoilt = json.loads(json.dumps(document))
    (SPOILERS | BEYOND_THE_SCHEMA)[name](spoilt)
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(spoilt))
    with pytest.raises(PackageError) as caught:
        Manifest.read(tmp_path)
    assert str(caught.value).isprintable()


def test_options_may_be_missing(document: dict[str, Any], tmp_path: Path) -> None:
    older = {key: value for key, value in document.items() if key not in OPTIONAL}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(older))
    manifest = Manifest.read(tmp_path)
    assert manifest.options is None
    jsonschema.Draft202012Validator(SCHEMA).validate(older)
    manifest.write(tmp_path)
    assert json.loads((tmp_path / MANIFEST_NAME).read_text()) == older


def test_a_manifest_reads_back_as_it_was_written(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    original = Manifest.read(tiny_package(tmp_path_factory))
    original.write(tmp_path)
    assert Manifest.read(tmp_path) == original


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "found list, expected a JSON object"),
        ("{}", "not a gptoss-onnx manifest"),
        (
            '{"format": "gptoss-onnx", "format_version": 0}',
            "format_version is 0, .* export it again",
        ),
        (
            '{"format": "gptoss-onnx", "format_version": 99}',
            "format_version is 99, .* upgrade gptoss-onnx",
        ),
        ('{"format": "gptoss-onnx", "format_version": true}', "format_version is True"),
        ('{"format": "gptoss-onnx", "format_version": 1}', "malformed"),
        ('{"format": "gptoss-onnx", "format_version": 2}', "malformed"),
        ('{"format": "gptoss-onnx", "format_version": 2, "surprise": 1}', "unknown surprise"),
    ],
)
def test_other_documents_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(PackageError, match=message):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("model",), [], "model: found \\[\\], expected an object"),
        (("graph",), None, "graph: found None, expected str"),
        (("opset",), True, "opset: found True, expected int"),
        (("cache",), {}, "cache: found {}, expected a list"),
        (("cache", 1, "window"), "8", "cache\\[1\\].window: found '8', expected int"),
        (
            ("weights", "mode"),
            "move",
            "weights.mode: found 'move', expected link or copy or reference",
        ),
        (("weights", "files", 0), 3, "weights.files\\[0\\]: found 3, expected an object"),
        (("weights", "files", 0), {"name": "x"}, "missing weights.files\\[0\\].header_sha256, "),
    ],
    ids=str,
)
def test_values_of_other_types_are_named(
    tmp_path: Path, document: dict[str, Any], place: tuple[Any, ...], value: object, message: str
) -> None:
    spoilt = json.loads(json.dumps(document))
    part = spoilt
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(spoilt))
    with pytest.raises(PackageError, match=f"malformed \\({message}"):
        Manifest.read(tmp_path)
