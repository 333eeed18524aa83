"""What `export` prints of a package that it has written."""

from collections import Counter
from pathlib import Path

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.manifest import Adapter, Manifest


def export_summary(output: Path, folder: Path, manifest: Manifest, seconds: float) -> str:
    """Return some lines about a package in `folder`, which is called `output`."""
    windows = Counter(layer.window for layer in manifest.cache)
    kinds = (
        f"{count} {f'window {window}' if window else 'full'}"
        for window, count in sorted(windows.items())
    )
    layers = len(manifest.cache) if manifest.stage is None else manifest.stage
    lines = {
        "layers": f"{layers} ({', '.join(kinds)})",
        "experts": _experts(folder / manifest.graph),
        "ops": ", ".join(f"{use.count} {use.name}" for use in manifest.ops),
        "weights": _weights(manifest),
        "adapter": ", ".join(map(_adapter, manifest.adapters)),
        "lossy": ", ".join(manifest.lossy),
        "rounding": "; ".join(_rounding(manifest)),
        "written": f"{file_size(_bytes_written(folder, manifest))} of new files",
        "time": f"{seconds:.1f} s",
    }
    return "\n".join([str(output), *(f"  {key:<9}{text}" for key, text in lines.items() if text)])


def _rounding(manifest: Manifest) -> list[str]:
    from gptoss_onnx.exporter.expert_errors import said_of

    return [line for entry in manifest.rounded for line in said_of(entry.errors)]


def _experts(graph: Path) -> str:
    from gptoss_onnx.bench.footprint import mixtures
    from gptoss_onnx.runtime.graph_file import GraphFile

    kinds = mixtures(GraphFile.read(graph))
    texts = (
        f"{experts}, {taken} a token, in {count_of(layers, 'layer')}"
        for (experts, taken), layers in sorted(kinds.items())
    )
    return "; ".join(texts)


def _weights(manifest: Manifest) -> str:
    weights = manifest.weights
    done = {
        "link": "hard-linked, no byte copied",
        "copy": "copied",
        "reference": f"referred to in {weights.root}",
    }
    placed = [entry for entry in weights.files if entry.origin == "checkpoint"]
    size = sum(entry.size for entry in placed)
    files = count_of(len(placed), "file")
    text = f"{files} {done[weights.mode]} ({file_size(size)}, {weights.layout})"
    computed = (
        f"{entry.name} computed ({file_size(entry.size)})"
        for entry in weights.files
        if entry not in placed
    )
    return "; ".join([*([text] if placed else []), *computed])


def _adapter(adapter: Adapter) -> str:
    return adapter.name if adapter.base is None else f"{adapter.name} (made for {adapter.base})"


def _bytes_written(folder: Path, manifest: Manifest) -> int:
    """Return the size of the package's files that are not links to the checkpoint's."""
    weights = manifest.weights
    shared = (
        entry.name
        for entry in weights.files
        if weights.mode == "link" and entry.origin == "checkpoint"
    )
    linked = set(shared)
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(
        path.stat().st_size for path in files if path.relative_to(folder).as_posix() not in linked
    )
