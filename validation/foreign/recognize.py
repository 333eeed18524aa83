"""Recognise what a folder holds: which exporter wrote it, and which graph is to be run when.

Names of files come from strangers' JSON. Only plain names of regular files of the folder are
followed.
"""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from gptoss_onnx.custom_ops import DOMAIN
from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import is_plain_name
from gptoss_onnx.json_text import printable
from gptoss_onnx.manifest import MANIFEST_NAME
from gptoss_onnx.package import GENAI_CONFIG, read_own_json
from gptoss_onnx.runtime.arguments import folder_path
from gptoss_onnx.validation.foreign.export import ForeignExport
from gptoss_onnx.validation.foreign.graph import ForeignGraph

TRANSFORMERS_MANIFEST = "export.json"
MODEL = "model.onnx"
PAIR = ("decoder_model.onnx", "decoder_with_past_model.onnx")  # optimum's older exports
SUBFOLDER = "onnx"  # where hubs keep the graphs beside the checkpoint
LISTED = 4096  # files of a folder that are looked at
_EXPECTED = (
    f"a package (manifest.json), onnxruntime-genai's {GENAI_CONFIG}, transformers' "
    f"{TRANSFORMERS_MANIFEST}, or {MODEL}"
)


def recognize(folder: str | os.PathLike[str]) -> ForeignExport:
    """Return what a folder of another exporter holds.

    Raises InputError if `folder` is not a path, and PackageError if there is nothing in it that can
    be driven, in one line that says what was found.
    """
    path = Path(folder_path("package", folder)).absolute()
    names = _listed(path)
    readers: dict[str, Callable[[Path], ForeignExport]] = {
        GENAI_CONFIG: _genai,
        TRANSFORMERS_MANIFEST: _transformers,
    }
    for name, read in readers.items():
        if name in names:
            return read(path)
    if not _graphs(names) and SUBFOLDER in names and not (path / SUBFOLDER).is_symlink():
        return _plain(path / SUBFOLDER, path)
    return _plain(path, path)


def _genai(folder: Path) -> ForeignExport:
    """A package for onnxruntime-genai: its JSON names one graph."""
    where = folder / GENAI_CONFIG
    model = _object(read_own_json(folder, GENAI_CONFIG), "model", where)
    decoder = _object(model, "decoder", where)
    if decoder.get("pipeline"):
        raise PackageError(
            f"{where}: found a pipeline of several graphs, expected one decoder graph"
        )
    graph = ForeignGraph.read(folder, _name(decoder, "filename", where))
    return ForeignExport(f"onnxruntime-genai ({_text(model, 'type')})", graph, graph)


def _transformers(folder: Path) -> ForeignExport:
    """What transformers.exporters saves: `model`, or `prefill` and `decode`."""
    where = folder / TRANSFORMERS_MANIFEST
    manifest = read_own_json(folder, TRANSFORMERS_MANIFEST)
    if manifest.get("export_format") != "onnx":
        raise PackageError(
            f"{where}: found export_format {manifest.get('export_format')!r:.40}, expected 'onnx'"
        )
    components = _object(manifest, "components", where)
    parts = ("model", "model") if "model" in components else ("prefill", "decode")
    if not components.keys() <= set(parts) or not set(parts) <= components.keys():
        found = ", ".join(f"{name!r:.40}" for name in list(components)[:6]) or "none"
        raise PackageError(
            f"{where}: found the components {found}, expected model, or prefill and decode"
        )
    entries = {part: _object(components, part, where) for part in parts}
    graphs = {
        part: ForeignGraph.read(folder, _name(entry, "file", where))
        for part, entry in entries.items()
    }
    metadata = entries[parts[0]].get("metadata")
    packages = metadata.get("packages") if isinstance(metadata, dict) else None
    version = _text(packages, "transformers") if isinstance(packages, dict) else ""
    exporter = f"transformers.exporters {version}".strip()
    return ForeignExport(exporter, graphs[parts[0]], graphs[parts[1]])


def _plain(folder: Path, whole: Path) -> ForeignExport:
    """A graph, or optimum's two, without a document that says so."""
    names = _listed(folder)
    graphs = _graphs(names)
    if set(PAIR) <= set(graphs) and MODEL not in graphs:
        first, later = (ForeignGraph.read(folder, name) for name in PAIR)
        return ForeignExport("optimum-onnx, two graphs", first, later)
    if MODEL not in graphs and len(graphs) != 1:
        found = ", ".join(f"{name!r:.40}" for name in (graphs or names)[:6]) or "nothing"
        raise PackageError(f"{whole}: found {found}, expected {_EXPECTED}")
    graph = ForeignGraph.read(folder, MODEL if MODEL in graphs else graphs[0])
    if any(node.domain == DOMAIN for node in graph.graph.nodes):
        raise PackageError(
            f"{whole}: not a package: it has no {MANIFEST_NAME} (an export that finished writes it "
            "last); export again"
        )
    has_config = (whole / "config.json").is_file()
    kind = "a graph with config.json, as optimum-onnx writes" if has_config else "a plain graph"
    return ForeignExport(kind, graph, graph)


def _listed(folder: Path) -> list[str]:
    """Return the names in a folder, some of them where there are very many."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, LISTED))
    except OSError as error:
        raise PackageError(f"{folder}: cannot be listed ({error.strerror})") from error


def _graphs(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".onnx")]


def _object(document: dict[str, Any], key: str, where: Path) -> dict[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise PackageError(f"{where}: {key} is {value!r:.40}, expected an object")
    return value


def _name(document: dict[str, Any], key: str, where: Path) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not is_plain_name(value) or not value.endswith(".onnx"):
        raise PackageError(
            f"{where}: {key} is {value!r:.60}, expected the plain name of an ONNX file"
        )
    return value


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return printable(value[:40]) if isinstance(value, str) else ""
