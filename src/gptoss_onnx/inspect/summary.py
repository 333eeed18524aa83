"""`inspect` for people: one aligned block of lines."""

from collections import defaultdict
from collections.abc import Iterator

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.inspect.findings import Findings
from gptoss_onnx.manifest import TensorSpec

# long, shown elsewhere, or always alike
HIDDEN = ("layer_types", "architectures", "hidden_act")


def summarize(findings: Findings) -> str:
    """Return the text that `inspect` prints."""
    lines = [str(findings.folder)]
    for title, entries in (
        ("package", _package(findings)),
        ("model", _model(findings)),
        ("cache", _cache(findings)),
        ("inputs", _specs(findings.manifest.inputs)),
        ("outputs", _specs(findings.manifest.outputs)),
        ("ops", _ops(findings)),
        ("weights", _weights(findings)),
        ("tokenizer", _tokenizer(findings)),
    ):
        for index, entry in enumerate(entries):
            lines.append(f"  {title if index == 0 else '':<11}{entry}")
    return "\n".join(lines)


def _package(findings: Findings) -> Iterator[str]:
    manifest, graph = findings.manifest, findings.graph
    yield f"written by {manifest.exporter}, target {manifest.target}"
    size = "missing" if graph.size is None else file_size(graph.size)
    yield f"graph {graph.name} ({size}), opset {manifest.opset}"
    if manifest.stage is not None:
        yield f"a stage, which runs beside the others: {manifest.stage}"
    yield f"lossy: {', '.join(manifest.lossy) or 'nothing'}"
    yield f"not offered: {', '.join(manifest.unsupported) or 'nothing'}"
    yield f"golden vectors: {_yes(findings.golden)}; parity report: {_yes(findings.parity)}"


def _model(findings: Findings) -> Iterator[str]:
    for key, value in findings.manifest.model.items():
        if isinstance(value, dict):  # rope_scaling, for instance
            parts = (f"{name} {part}" for name, part in value.items() if not isinstance(part, list))
            yield f"{key} {', '.join(parts)}"
        elif key not in HIDDEN:
            yield f"{key} {value}"


def _cache(findings: Findings) -> Iterator[str]:
    """Yield one line for each kind of layer, then the sums of one sequence."""
    manifest = findings.manifest
    kinds: defaultdict[tuple[int, int, int, int | None], list[int]] = defaultdict(list)
    for layer, cache in zip(findings.cache, manifest.cache, strict=True):
        kind = (layer.window, cache.sink_tokens, layer.bytes_per_slot, layer.ring_slots)
        kinds[kind].append(layer.layer)
    for (window, kept, slot, ring), layers in kinds.items():
        if ring is None:
            text = f"full: {slot} bytes a token"
        else:
            first = f" with {count_of(kept, 'first token')} kept" if kept else ""
            text = f"window {window}{first}: a ring of {ring} slots of {slot} bytes"
        yield f"{count_of(len(layers), 'layer')} ({_ranges(layers)}), {text}"
    parts = (
        f"{findings.bytes_per_token} bytes a token",
        f"{file_size(findings.ring_bytes)} of rings",
    )
    held = (findings.bytes_per_token, findings.ring_bytes)
    takes = " and ".join(part for part, size in zip(parts, held, strict=True) if size)
    yield f"{manifest.kv_dtype}; one sequence of up to {manifest.longest} tokens takes {takes}"


def _specs(specs: tuple[TensorSpec, ...]) -> Iterator[str]:
    """Yield one line for each dtype and shape; of many names, the first and the last."""
    seen: defaultdict[tuple[str, tuple[int | str, ...]], list[str]] = defaultdict(list)
    for spec in specs:
        seen[spec.dtype, spec.shape].append(spec.name)
    for (dtype, shape), names in seen.items():
        dims = ", ".join(map(str, shape))
        shown = ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)})"
        yield f"{shown}: {dtype} ({dims})"


def _ops(findings: Findings) -> Iterator[str]:
    if not findings.manifest.ops:
        yield "standard ONNX ops alone, without functions"
    for use in findings.manifest.ops:
        yield f"{use.domain}.{use.name} version {use.version}: {count_of(use.count, 'node')}"


def _weights(findings: Findings) -> Iterator[str]:
    weights = findings.manifest.weights
    total = sum(entry.size for entry in weights.files)
    place = f" to {weights.root}" if weights.root is not None else ""
    identity = "bit-identical to the checkpoint" + (
        "" if weights.bit_identical else " but for those named as lossy"
    )
    yield f"{weights.mode}{place}, {weights.layout}, {file_size(total)}, {identity}"
    for entry, recorded in zip(findings.weights, weights.files, strict=True):
        computed = ", computed by the export" if recorded.origin == "export" else ""
        yield f"{entry.name} ({file_size(entry.size or 0)}{computed}): {entry.state}"


def _tokenizer(findings: Findings) -> Iterator[str]:
    yield ", ".join(findings.manifest.tokenizer_files) or "none: give and take token ids"
    yield f"chat template: {_yes(findings.chat_template)}"


def _ranges(numbers: list[int]) -> str:
    """Return numbers as people list them: all few, else the first, the step and the last."""
    if len(numbers) <= 4:
        return ", ".join(map(str, numbers))
    return f"{numbers[0]}, {numbers[1]}, {numbers[2]} … {numbers[-1]}"


def _yes(present: bool) -> str:
    return "yes" if present else "no"
