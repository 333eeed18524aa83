"""Packages that were written before format 2 stay packages: their manifest is read as one of
format 2.

`manifest-format-1.json` is what the last exporter of format 1 wrote for `export --dense int8` of a
tiny random checkpoint (2 layers, windows 8 and none, vocabulary 320, 160 positions).
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import FORMAT_VERSION, MANIFEST_NAME, Manifest, RoundedWeights

OLD = json.loads((Path(__file__).parent / "manifest-format-1.json").read_text())
INT8 = RoundedWeights("dense-int8", "dense-int8.safetensors", 32)
INT4 = RoundedWeights("experts-int4", "weights.safetensors", 32)


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(OLD))
    change(document)
    return document


def read(document: dict[str, Any], folder: Path) -> Manifest:
    (folder / MANIFEST_NAME).write_text(json.dumps(document))
    return Manifest.read(folder)


def test_what_format_1_says_is_kept_and_what_it_lacks_is_found(tmp_path: Path) -> None:
    manifest = read(OLD, tmp_path)
    assert (manifest.vocab_size, manifest.longest) == (320, 160)
    assert manifest.onnxruntime == "1.28"
    assert [layer.sink_tokens for layer in manifest.cache] == [0, 0]
    assert manifest.rounded == (INT8,)
    found = json.loads(json.dumps(asdict(manifest)))
    for layer in found["cache"]:
        del layer["sink_tokens"]
    added = ("vocab_size", "longest", "eos_tokens", "rounded", "onnxruntime", "options", "stage")
    for key in (*added, "adapters"):
        del found[key]
    assert {"format": "gptoss-onnx", "format_version": 1, **found} == OLD


def test_it_is_written_as_format_2_and_reads_back_the_same(tmp_path: Path) -> None:
    manifest = read(OLD, tmp_path)
    manifest.write(tmp_path)
    assert json.loads((tmp_path / MANIFEST_NAME).read_text())["format_version"] == FORMAT_VERSION
    assert Manifest.read(tmp_path) == manifest


def _int4(document: dict[str, Any]) -> None:
    document["weights"]["files"][1]["name"] = "weights.safetensors"
    document["lossy"] = ["experts in int4 (block 32)"]


def _unrounded(document: dict[str, Any]) -> None:
    del document["weights"]["files"][1]
    document["lossy"] = []


@pytest.mark.parametrize(("change", "rounded"), [(_int4, (INT4,)), (_unrounded, ())])
def test_rounded_weights_are_told_by_file_or_sentence(
    change: Callable[[dict[str, Any]], None], rounded: tuple[RoundedWeights, ...], tmp_path: Path
) -> None:
    assert read(changed(change), tmp_path).rounded == rounded


@pytest.mark.parametrize(("found", "tokens"), [(7, (7,)), ([7, 8], (7, 8)), ([], ()), (None, ())])
def test_the_models_end_tokens_become_the_packages(
    found: object, tokens: tuple[int, ...], tmp_path: Path
) -> None:
    document = changed(lambda it: it["model"].update(eos_token_id=found))
    assert read(document, tmp_path).eos_tokens == tokens


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it.pop("model"), "missing model"),
        (
            lambda it: it["model"].update(eos_token_id="end"),
            r"eos_tokens\[0\]: found 'end', expected int",
        ),
        (lambda it: it["model"].pop("vocab_size"), "missing model.vocab_size"),
        (
            lambda it: it["model"].update(max_position_embeddings="9"),
            "model.max_position_embeddings: found '9', expected an integer",
        ),
        (lambda it: it["model"].update(vocab_size=True), "model.vocab_size: found True, expected"),
        (lambda it: it["model"].update(vocab_size=-1), "vocab_size: found -1, expected 1 to"),
        (lambda it: it.update(cache={}), "cache: found {}, expected a list"),
        (lambda it: it.update(cache=[3]), r"cache\[0\]: found 3, expected an object"),
        (lambda it: it["weights"].update(files=None), "weights.files: found None, expected a list"),
        (lambda it: it.update(vocab_size=320), "unknown vocab_size, which format 1 does not have"),
        (
            lambda it: it["cache"][1].update(sink_tokens=0),
            r"unknown cache\[1\].sink_tokens, which format 1 does not have",
        ),
        (lambda it: it.update(options={}), "unknown options, which format 1 does not have"),
        (lambda it: it.update(surprise=1), "unknown surprise"),
    ],
)
def test_what_is_wrong_in_it_is_named(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=f"malformed \\({message}"):
        read(changed(change), tmp_path)
