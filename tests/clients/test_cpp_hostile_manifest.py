"""Values of a stranger's manifest in the C++ client: each has a range, and what has another is
refused in one line.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from support.cpp_client import Client, change_manifest

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

LARGE = 9_223_372_036_854_775_807


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("stage",), {"first": 0, "end": 3, "layers": 9}, "found a package of some layers alone"),
        (("cache", 0, "kv_heads"), -2, "cache/0/kv_heads: found -2, expected 1 to"),
        (("cache", 0, "kv_heads"), 0, "cache/0/kv_heads: found 0, expected 1 to"),
        (
            ("cache", 0, "kv_heads"),
            LARGE,
            "cache/0/kv_heads: found 9223372036854775807, expected 1 to",
        ),
        (("cache", 0, "kv_heads"), 2**63, "cache/0/kv_heads: found a number, expected an integer"),
        (
            ("cache", 0, "kv_heads"),
            4,
            "past_key_values.0.key': found another type or shape, expected what the manifest",
        ),
        (("cache", 0, "head_dim"), 2**40, "cache/0/head_dim: found 1099511627776, expected 1 to"),
        (
            ("cache", 0, "head_dim"),
            16,
            "past_key_values.0.key': found another type or shape, expected what the manifest",
        ),
        (("cache", 0, "window"), -1, "cache/0/window: found -1, expected 0 to"),
        (("cache", 0, "window"), LARGE, "cache/0/window: found 9223372036854775807, expected 0 to"),
        (("cache", 0, "sink_tokens"), None, "cache/0/sink_tokens: found null, expected an integer"),
        (("cache", 0, "sink_tokens"), -1, "cache/0/sink_tokens: found -1, expected 0 to 31"),
        (("cache", 0, "sink_tokens"), 32, "cache/0/sink_tokens: found 32, expected 0 to 31"),
        (("cache", 1, "sink_tokens"), 1, "cache/1/sink_tokens: found 1, expected 0 to 0"),
        (
            ("cache", 0, "past_key"),
            "other",
            "graph: found no 'other', expected one, as the manifest says",
        ),
        (("cache", 0, "past_key"), "input_ids", "graph: 'input_ids': found another type or shape"),
        (("cache", 0, "present_value"), "\x1b", "graph: found no '\\x1b', expected one"),
        (("cache", 0), None, "cache/0: found null, expected an object"),
        (("cache",), [], "cache: found 0 layers, expected 1 to"),
        (("cache",), [{}] * 5000, "cache: found 5000 layers, expected 1 to"),
        (("cache",), {}, "cache: found an object, expected an array"),
        (
            ("kv_dtype",),
            "float64",
            "kv_dtype: found float64, expected float32 or float16 or bfloat16",
        ),
        (("kv_dtype",), "float16", "found another type or shape, expected what the manifest says"),
        (("vocab_size",), 0, "vocab_size: found 0, expected 1 to"),
        (
            ("vocab_size",),
            LARGE,
            "vocab_size: found 9223372036854775807, expected 1 to",
        ),
        (("vocab_size",), 2047, "graph: 'logits': found another type or shape"),
        (("vocab_size",), 1e9, "vocab_size: found a number, expected an integer"),
        (("vocab_size",), True, "vocab_size: found a boolean, expected an integer"),
        (
            ("longest",),
            2**62,
            "longest: found 4611686018427387904",
        ),
        (
            ("longest",),
            -1,
            "longest: found -1, expected 1 to",
        ),
        (("tokenizer_files",), ["a"] * 100, "tokenizer_files: found 100 files, expected at most"),
        (
            ("weights", "mode"),
            "steal",
            "weights/mode: found steal, expected link or copy or reference",
        ),
        (("weights", "root"), "/", "weights/root: found /, expected null, in mode"),
        (
            ("weights", "files", 0, "origin"),
            "moon",
            "origin: found moon, expected checkpoint or export",
        ),
        (("weights", "files", 0, "size"), 1, "bytes, expected 1, as when the package was written"),
        (("weights", "files", 0, "size"), -1, "size: found -1, expected 0 to"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_manifests_that_make_no_sense(
    client: Client, spoilt: Path, path: tuple[str | int, ...], value: Any, line: str
) -> None:
    change_manifest(spoilt, *path, value=value)
    assert line in client.refused(spoilt)


def test_a_key_that_is_there_twice(client: Client, spoilt: Path) -> None:
    text = (spoilt / "manifest.json").read_text()
    (spoilt / "manifest.json").write_text('{"graph": "model.onnx",' + text[1:])
    assert 'once the key "graph"' in client.refused(spoilt)


@pytest.mark.parametrize("value", [-1, "2", 2.5, [1, -1], [1, "2"], 2**31, {}])
def test_stop_tokens_are_token_ids(client: Client, spoilt: Path, value: Any) -> None:
    (spoilt / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    assert "eos_token_id" in client.refused(spoilt)
    (spoilt / "generation_config.json").unlink()
    change_manifest(spoilt, "eos_tokens", value=value)
    assert "eos_tokens" in client.refused(spoilt)


def test_a_config_of_null_leaves_the_manifests_stop_tokens(client: Client, spoilt: Path) -> None:
    tokens = client.generate(spoilt, [1428, 304, 258], "--max-new-tokens", "8")["tokens"]
    (spoilt / "generation_config.json").write_text('{"eos_token_id": null}')
    change_manifest(spoilt, "eos_tokens", value=[tokens[3]])
    found = client.generate(spoilt, [1428, 304, 258], "--max-new-tokens", "8")
    assert (found["tokens"], found["finish_reason"]) == (
        tokens[: tokens.index(tokens[3]) + 1],
        "stop",
    )


def test_a_package_without_a_stop_token_is_told(client: Client, spoilt: Path) -> None:
    (spoilt / "generation_config.json").unlink()
    change_manifest(spoilt, "eos_tokens", value=[])
    result = client.run(spoilt, "--prompt-tokens", "1", "--max-new-tokens", "2")
    assert "names no token that ends a text: only --max-new-tokens or --stop-token do" in result.err
    assert (
        "names no token" not in client.run(spoilt, "--prompt-tokens", "1", "--stop-token", "5").err
    )


def make_old(package: Path) -> None:
    """Make the manifest of a package one of format 1."""
    file = package / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["model"]["vocab_size"] = manifest.pop("vocab_size")
    manifest["model"]["max_position_embeddings"] = manifest.pop("longest")
    del manifest["eos_tokens"]
    for layer in manifest["cache"]:
        del layer["sink_tokens"]
    del manifest["rounded"]
    file.write_text(json.dumps(manifest | {"format_version": 1}))


def test_format_1_runs_as_format_2(client: Client, spoilt: Path) -> None:
    prompt = [1428, 304, 258]
    expected = client.generate(spoilt, prompt, "--max-new-tokens", "8")["tokens"]
    make_old(spoilt)
    assert client.generate(spoilt, prompt, "--max-new-tokens", "8")["tokens"] == expected
    line = client.refused(spoilt, "--prompt-tokens", "1", "--capacity", "1025")
    assert "capacity: found 1025, expected 1 to 1024" in line


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (("format_version",), 2, "vocab_size: found nothing, expected a value"),
        (("model",), None, "model: found null, expected an object"),
        (("model",), {}, "model/vocab_size: found nothing, expected a value"),
        (("model", "vocab_size"), 0, "vocab_size: found 0, expected 1 to"),
        (("model", "max_position_embeddings"), "1", "longest: found a string, expected an integer"),
        (("cache",), {}, "cache: found an object, expected an array"),
        (("cache", 0), 7, "cache/0: found an integer, expected an object"),
        (("cache", 0, "window"), -1, "cache/0/window: found -1, expected 0 to"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_manifests_of_format_1_that_make_no_sense(
    client: Client, spoilt: Path, path: tuple[str | int, ...], value: Any, line: str
) -> None:
    make_old(spoilt)
    change_manifest(spoilt, *path, value=value)
    assert line in client.refused(spoilt)


def test_the_models_sizes_count_for_nothing(client: Client, spoilt: Path) -> None:
    change_manifest(spoilt, "model", "vocab_size", value=-1)
    change_manifest(spoilt, "model", "max_position_embeddings", value="many")
    assert client.run(spoilt, "--prompt-tokens", "1", "--max-new-tokens", "1").code == 0
