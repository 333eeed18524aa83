"""Read a manifest of format 1, which packages written before format 2 have, as one of format 2.

Format 1 had no `vocab_size`, `longest`, `eos_tokens`, `rounded` and `onnxruntime` of its own. The
first three stood in the model's configuration. A file's name or a sentence said which weights were
rounded. No cache layer kept its first tokens, and every package ran on ONNX Runtime 1.28.
"""

from collections.abc import Mapping
from typing import Any

_NEW = ("vocab_size", "longest", "eos_tokens", "rounded", "onnxruntime", "options", "stage")
_INT8_FILE = "dense-int8.safetensors"
_INT4_FILE = "weights.safetensors"
_INT4_SENTENCE = "experts in int4 (block 32)"
_BLOCK = 32


def upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of format 2, both without `format` and `format_version`.

    Raises TypeError for a key that format 1 does not have, and if something else stands where this
    expects an object, a list or an integer. All other values are left as they are, for the reader
    of format 2 to check.
    """
    _refuse_new("", document, _NEW)
    model = _expect(document, "model", dict)
    eos = model.get("eos_token_id")
    tokens = [] if eos is None else eos if isinstance(eos, list) else [eos]
    added = {
        "vocab_size": _expect(model, "vocab_size", int, "model."),
        "longest": _expect(model, "max_position_embeddings", int, "model."),
        "eos_tokens": tokens,
        "onnxruntime": "1.28",
    }
    cache = [_upgraded_layer(index, layer) for index, layer in _objects(document, "cache")]
    return {**document, **added, "cache": cache, "rounded": _rounded(document)}


def _upgraded_layer(index: int, layer: dict[str, Any]) -> dict[str, Any]:
    _refuse_new(f"cache[{index}].", layer, ("sink_tokens",))
    return {**layer, "sink_tokens": 0}


def _rounded(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    files = _objects(_expect(document, "weights", dict), "files", "weights.")
    found = []
    if any(entry.get("name") == _INT8_FILE for _, entry in files):
        found.append({"kind": "dense-int8", "file": _INT8_FILE, "block": _BLOCK})
    if _INT4_SENTENCE in _expect(document, "lossy", list):
        found.append({"kind": "experts-int4", "file": _INT4_FILE, "block": _BLOCK})
    return found


def _refuse_new(where: str, document: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if key in document:
            raise TypeError(f"unknown {where}{key}, which format 1 does not have")


def _objects(
    document: Mapping[str, Any], key: str, where: str = ""
) -> list[tuple[int, dict[str, Any]]]:
    entries = list(enumerate(_expect(document, key, list, where)))
    for index, entry in entries:
        if not isinstance(entry, dict):
            raise TypeError(f"{where}{key}[{index}]: found {entry!r:.60}, expected an object")
    return entries


def _expect(document: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:
    if key not in document:
        raise TypeError(f"missing {where}{key}")
    value = document[key]
    if type(value) is not kind:  # exactly: a boolean is no integer
        names = {dict: "an object", list: "a list", int: "an integer"}
        raise TypeError(f"{where}{key}: found {value!r:.60}, expected {names[kind]}")
    return value
