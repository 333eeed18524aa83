"""Does a manifest make sense? Its types are right already; these are the values that no export
writes.

A manifest may come from a stranger. Its numbers become sizes of memory and its names become paths,
so both are bounded here, once, before anything is opened or allocated. All functions raise
ValueError.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from gptoss_onnx.files import is_plain_name
from gptoss_onnx.json_text import printable

if TYPE_CHECKING:
    from gptoss_onnx.manifest import Manifest, TensorSpec, WeightFile, Weights

KV_DTYPES = ("float32", "float16", "bfloat16")
_DTYPES = ("int64", *KV_DTYPES)
_COUNT_LIMIT = 1 << 31  # of anything that is counted: heads, tokens, vocabulary
_SIZE_LIMIT = 1 << 50  # bytes of a file: a petabyte
_LAYERS_LIMIT = 10_000
_NAME_LIMIT = 1000  # letters
_DIMENSIONS_LIMIT = 8
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
_SHA256_DIGITS = frozenset("0123456789abcdef")


def check_manifest(manifest: "Manifest") -> None:
    """Refuse a manifest that no export writes; ValueError says which entry is wrong, and why."""
    # ONNX Runtime takes a file of another ending for its own format, in which nobody looks for
    # external data.
    fits = is_plain_name(manifest.graph) and manifest.graph.endswith(".onnx")
    _expect("graph", manifest.graph, fits, "a plain file name that ends in .onnx")
    for index, name in enumerate(manifest.tokenizer_files):
        _expect(f"tokenizer_files[{index}]", name, is_plain_name(name), "a plain file name")
    _check_name("exporter", manifest.exporter)
    least = manifest.onnxruntime
    _expect("onnxruntime", least, _VERSION.fullmatch(least) is not None, "a version such as 1.32")
    _range("opset", manifest.opset, 1)
    for index, use in enumerate(manifest.ops):
        _check_name(f"ops[{index}].domain", use.domain)
        _check_name(f"ops[{index}].name", use.name)
        _range(f"ops[{index}].count", use.count, 1)
        _range(f"ops[{index}].version", use.version, 1)
    _range("vocab_size", manifest.vocab_size, 1)
    _range("longest", manifest.longest, 1)
    for index, token in enumerate(manifest.eos_tokens):
        _range(f"eos_tokens[{index}]", token, 0)
    _check_tensors("inputs", manifest.inputs)
    _check_tensors("outputs", manifest.outputs)
    _check_cache(manifest)
    _check_stage(manifest)
    _check_weights(manifest.weights)
    _check_rounded(manifest)
    _check_adapters(manifest)
    _check_texts("lossy", manifest.lossy)
    _check_texts("unsupported", manifest.unsupported)
    if manifest.options is not None:
        for key in ("target", "kv_dtype"):
            expected = getattr(manifest, key)
            found = getattr(manifest.options, key)
            _expect(f"options.{key}", found, found == expected, f"{expected}, as {key} says")


def _check_tensors(where: str, specs: "Sequence[TensorSpec]") -> None:
    for index, spec in enumerate(specs):
        place = f"{where}[{index}]"
        _check_name(f"{place}.name", spec.name)
        _expect(f"{place}.dtype", spec.dtype, spec.dtype in _DTYPES, " or ".join(_DTYPES))
        fits = 0 < len(spec.shape) <= _DIMENSIONS_LIMIT
        _expect(f"{place}.shape", list(spec.shape), fits, f"1 to {_DIMENSIONS_LIMIT} dimensions")
        for axis, size in enumerate(spec.shape):
            if isinstance(size, int):
                _range(f"{place}.shape[{axis}]", size, 1)
            else:
                _check_name(f"{place}.shape[{axis}]", size)
    _check_different(where, [spec.name for spec in specs])


def _check_cache(manifest: "Manifest") -> None:
    dtype = manifest.kv_dtype
    _expect("kv_dtype", dtype, dtype in KV_DTYPES, " or ".join(KV_DTYPES))
    layers = manifest.cache
    _expect(
        "cache",
        f"{len(layers)} layers",
        0 < len(layers) <= _LAYERS_LIMIT,
        f"1 to {_LAYERS_LIMIT} layers",
    )
    for index, layer in enumerate(layers):
        _range(f"cache[{index}].window", layer.window, 0)
        # A window sees at least one token that it does not keep; a full layer keeps them all.
        # Target ort has no op that keeps some.
        limit = max(layer.window, 1) if manifest.target != "ort" else 1
        _range(f"cache[{index}].sink_tokens", layer.sink_tokens, 0, limit)
        _range(f"cache[{index}].kv_heads", layer.kv_heads, 1)
        _range(f"cache[{index}].head_dim", layer.head_dim, 1)
        for part in ("past_key", "past_value", "present_key", "present_value"):
            _check_name(f"cache[{index}].{part}", getattr(layer, part))
    _check_different(
        "cache", [name for layer in layers for name in (layer.past_key, layer.past_value)]
    )
    _check_different(
        "cache", [name for layer in layers for name in (layer.present_key, layer.present_value)]
    )


def _check_stage(manifest: "Manifest") -> None:
    stage = manifest.stage
    if stage is None:
        return
    _range("stage.layers", stage.layers, 2, _LAYERS_LIMIT + 1)
    _range("stage.first", stage.first, 0, stage.layers)
    _range("stage.end", stage.end, stage.first + 1, stage.layers + 1)
    count, found = stage.end - stage.first, len(manifest.cache)
    _expect("stage", str(stage), count < stage.layers, "some of the layers, not all")
    _expect("cache", f"{found} layers", found == count, f"{count}, the layers of the stage")


def _check_weights(weights: "Weights") -> None:
    refers = weights.mode == "reference"
    if refers:
        absolute = (
            weights.root is not None
            and Path(weights.root).is_absolute()
            and "\0" not in weights.root
        )
        _expect(
            "weights.root",
            weights.root,
            absolute,
            "an absolute folder, since weights.mode is reference",
        )
    else:
        expected = f"null, since weights.mode is {weights.mode}"
        _expect("weights.root", weights.root, weights.root is None, expected)
    _check_name("weights.layout", weights.layout)
    for index, entry in enumerate(weights.files):
        _check_weight_file(f"weights.files[{index}]", entry, refers)
    _check_different("weights.files", [entry.name for entry in weights.files])


def _check_weight_file(where: str, entry: "WeightFile", refers: bool) -> None:
    if refers:
        _expect(f"{where}.name", entry.name, _is_below(entry.name), "a path below weights.root")
        _expect(
            f"{where}.origin",
            entry.origin,
            entry.origin == "checkpoint",
            "checkpoint, in mode reference",
        )
    else:
        _expect(f"{where}.name", entry.name, is_plain_name(entry.name), "a plain file name")
    _range(f"{where}.size", entry.size, 1, _SIZE_LIMIT)
    for key, digest in (("header_sha256", entry.header_sha256), ("sha256", entry.sha256)):
        if digest is not None:
            _check_sha256(f"{where}.{key}", digest)


def _check_rounded(manifest: "Manifest") -> None:
    computed = {entry.name for entry in manifest.weights.files if entry.origin == "export"}
    for index, rounded in enumerate(manifest.rounded):
        expected = "one of weights.files of origin export"
        _expect(f"rounded[{index}].file", rounded.file, rounded.file in computed, expected)
        _range(f"rounded[{index}].block", rounded.block, 1)
        for number, error in enumerate(rounded.errors):
            place = f"rounded[{index}].errors[{number}]"
            _check_name(f"{place}.name", error.name)
            found = error.relative_rms
            _expect(f"{place}.relative_rms", found, 0 <= found <= 1, "a share from 0 to 1")
    _check_different("rounded", [entry.kind for entry in manifest.rounded])


def _check_adapters(manifest: "Manifest") -> None:
    modes = sorted({adapter.mode for adapter in manifest.adapters})
    _expect("adapters", modes, len(modes) <= 1, "one mode of all")
    for index, adapter in enumerate(manifest.adapters):
        where = f"adapters[{index}]"
        _check_name(f"{where}.name", adapter.name)
        if adapter.base is not None:
            _check_name(f"{where}.base", adapter.base)
        for key in ("config_sha256", "weights_sha256"):
            _check_sha256(f"{where}.{key}", getattr(adapter, key))


def _check_sha256(where: str, digest: str) -> None:
    fits = len(digest) == 64 and _SHA256_DIGITS.issuperset(digest)
    _expect(where, digest, fits, "64 hexadecimal digits")


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    parts = name.split("/")
    return not path.is_absolute() and all(is_plain_name(part) for part in parts)


def _check_name(where: str, name: str) -> None:
    fits = 0 < len(name) <= _NAME_LIMIT and printable(name) == name
    _expect(where, name, fits, f"a name of 1 to {_NAME_LIMIT} letters without control characters")


def _check_different(where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(
                f"{where}: found the name {name[:60]!r} twice, expected different ones"
            )
        seen.add(name)


def _check_texts(where: str, texts: Sequence[str]) -> None:
    for index, text in enumerate(texts):
        _check_name(f"{where}[{index}]", text)


def _range(where: str, value: int, least: int, limit: int = _COUNT_LIMIT) -> None:
    _expect(where, value, least <= value < limit, f"{least} to {limit - 1}")


def _expect(where: str, found: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{where}: found {found!r:.60}, expected {expected}")
