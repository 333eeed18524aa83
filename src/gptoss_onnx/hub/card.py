"""The model card of a package: what it is, how to run it, what was measured, where it is from.

Nothing is claimed that the manifest or a parity report does not say.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]  # ships no stubs

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import write_atomically
from gptoss_onnx.hub.markdown import bounded, code, plain, table
from gptoss_onnx.hub.measured import measured
from gptoss_onnx.hub.origin import CARD_FILE, LIBRARY, LICENCE_FILE, OTHER, Origin, read_beside
from gptoss_onnx.json_text import read_json_object
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import PARITY_FILE, Package, own_file

PROJECT = "gptoss-onnx"
_ADAPTED = {"merge": "merged into the weights", "runtime": "beside the weights in the graph"}


def write_card(package: Package, origin: Origin | None, report: Mapping[str, Any] | None) -> None:
    """Write README.md into a package, and beside it the checkpoint's licence if it is known.

    Args:
        package: the package.
        origin: of the checkpoint; None for what the package's earlier card says of it.
        report: a parity report; None for the package's own, if `validate` has left one there.

    Raises PackageError where a file of the package cannot be read, and InputError for a report that
    is none.
    """
    origin = known_origin(package) if origin is None else origin
    report = own_report(package) if report is None else report
    content = card(package.manifest, package.folder.name, origin, report)
    own_file(package.folder, CARD_FILE)  # refuses what leads out of the folder
    write_atomically(package.folder / CARD_FILE, content.encode())
    if origin.licence_text is not None:
        own_file(package.folder, LICENCE_FILE)
        write_atomically(package.folder / LICENCE_FILE, origin.licence_text)


def known_origin(package: Package) -> Origin:
    """Return what the card that lies in a package says of its checkpoint."""
    before = read_beside(package.folder, CARD_FILE)
    text = read_beside(package.folder, LICENCE_FILE)
    return Origin() if before is None else Origin.of_card(before, text)


def own_report(package: Package) -> Mapping[str, Any] | None:
    """Return the parity report in a package, None if there is none."""
    try:
        return read_json_object(own_file(package.folder, PARITY_FILE), PackageError)
    except FileNotFoundError:
        return None


def card(manifest: Manifest, name: str, origin: Origin, report: Mapping[str, Any] | None) -> str:
    """Return the card of a package as Markdown with YAML at its beginning."""
    lines = [
        f"# {plain(name)}",
        "",
        *_what_it_is(manifest, origin),
        "",
        "## How to run it",
        "",
        *_how_to_run(manifest),
        "",
        "## What was measured",
        "",
        *measured(report),
        "",
        "## Where it is from",
        "",
        *_where_from(manifest, origin),
        "",
        "## Licence",
        "",
        _licence(origin),
    ]
    return _front(manifest, origin) + "\n".join(lines) + "\n"


def _front(manifest: Manifest, origin: Origin) -> str:
    """Return the part in YAML, which the hub reads."""
    said = {
        "license": origin.licence,
        "license_name": origin.licence_name,
        "license_link": origin.licence_link,
        "base_model": origin.base_model,
        "library_name": LIBRARY,
        "pipeline_tag": "text-generation",
        "tags": ["onnx", "onnxruntime", bounded(_architecture(manifest), 60)],
    }
    known = {
        key: bounded(value) if isinstance(value, str) else value
        for key, value in said.items()
        if value is not None
    }
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True)}---\n\n"


def _what_it_is(manifest: Manifest, origin: Origin) -> list[str]:
    base = _base(origin)
    facts = {
        "architecture": code(_architecture(manifest)),
        "layers": _layers(manifest),
        "vocabulary": f"{manifest.vocab_size} tokens",
        "longest sequence": f"{manifest.longest} tokens",
        "target": f"{code(manifest.target)}, ONNX Runtime {plain(manifest.onnxruntime)} or newer",
        "ops": ", ".join(f"{use.count} {code(use.name)}" for use in manifest.ops)
        or "standard ONNX ops alone",
        "weights": _weights(manifest),
        "lossy": ", ".join(map(plain, manifest.lossy)) or "nothing",
        "KV cache": code(manifest.kv_dtype),
        "not offered": ", ".join(map(plain, manifest.unsupported)),
    }
    rows = [[key, value] for key, value in facts.items() if value]
    return [
        f"An ONNX package of {base}, made by {plain(manifest.exporter)}: a graph, the weights as "
        "safetensors files beside it, the tokenizer, and a manifest that says what each of them "
        "is.",
        "",
        *table(["", ""], rows),
    ]


def _how_to_run(manifest: Manifest) -> list[str]:
    if manifest.stage is not None:
        return [f"It is a stage, {manifest.stage}, and runs beside the others: see docs/serving."]
    native = manifest.target == "portable"
    others = (
        "The graph and the manifest are all that other languages need: C++, Node and browser "
        f"clients are in {PROJECT}'s folder `clients`, C#, Java, Rust and Go in its "
        "docs/serving."
    )
    bodies = " The custom ops carry their bodies in standard ONNX ops, so no library is needed."
    return [
        "FOLDER is the folder that holds `manifest.json`. From a repository of the hub: "
        "`hf download OWNER/NAME --local-dir .` makes it `onnx`. (The hub's cache is made of "
        "links, which are not followed out of a package.)",
        "",
        "```python",
        "from gptoss_onnx.runtime import Session  # pip install 'gptoss-onnx[cpu]'",
        "",
        'with Session.open("FOLDER") as session:',
        '    for text in session.stream_text("Once upon a time"):',
        '        print(text, end="", flush=True)',
        "```",
        "",
        "An OpenAI-compatible server: `gptoss-onnx serve FOLDER` (extra `serve`).",
        "",
        others + (bodies if native else ""),
    ]


def _where_from(manifest: Manifest, origin: Origin) -> list[str]:
    weights = manifest.weights
    kept = (
        "every weight that multiplies has the checkpoint's value, bit for bit"
        if weights.bit_identical
        else "weights are the checkpoint's, but for those that are named as lossy above"
    )
    lines = [
        f"- Checkpoint: {_base(origin)}, layout {code(weights.layout)}.",
        f"- Exporter: {plain(manifest.exporter)}; {kept}.",
    ]
    lines += [
        f"- Adapter {code(adapter.name)}, {_ADAPTED[adapter.mode]}; sha256 of its weights "
        f"{code(adapter.weights_sha256)}."
        for adapter in manifest.adapters
    ]
    for entry in weights.files:
        whole = f", sha256 {code(entry.sha256)}" if entry.sha256 else ""
        lines.append(
            f"- {code(entry.name)}: {file_size(entry.size)}, of the {plain(entry.origin)}, sha256 "
            f"of its header {code(entry.header_sha256)}{whole}."
        )
    return lines


def _licence(origin: Origin) -> str:
    if origin.licence is None:
        return (
            "**Unknown.** Neither a card nor a licence file of the checkpoint was found. Ask whom "
            "the checkpoint is from before you share this package."
        )
    named = code(origin.licence)
    if origin.licence == OTHER and origin.licence_name:
        named = plain(origin.licence_name)
    file = f" Its text is in [{LICENCE_FILE}]({LICENCE_FILE})." if origin.licence_text else ""
    return f"That of the checkpoint, as its own files say: {named}.{file}"


def _base(origin: Origin) -> str:
    base = origin.base_model
    if base is None:
        return "a checkpoint in a local folder"
    return f"[{plain(base)}](https://huggingface.co/{base})"


def _architecture(manifest: Manifest) -> str:
    return str(manifest.model.get("model_type", "unknown"))


def _layers(manifest: Manifest) -> str:
    windows = Counter(layer.window for layer in manifest.cache)
    kinds = (
        f"{count} {f'with a window of {window}' if window else 'full'}"
        for window, count in sorted(windows.items())
    )
    layers = str(len(manifest.cache)) if manifest.stage is None else str(manifest.stage)
    return f"{layers} ({', '.join(kinds)})"


def _weights(manifest: Manifest) -> str:
    files = manifest.weights.files
    size = file_size(sum(entry.size for entry in files))
    return f"{size} in {count_of(len(files), 'file')}, {code(manifest.weights.layout)}"
