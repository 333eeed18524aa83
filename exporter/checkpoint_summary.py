"""`inspect` of a checkpoint for people: one aligned block of lines."""

from collections.abc import Iterator, Mapping

from gptoss_onnx.amounts import count_of, file_size
from gptoss_onnx.exporter.checkpoint_findings import CheckpointFindings, Plan
from gptoss_onnx.json_text import printable

MOST_FILES = 6  # listed one by one
# long, shown elsewhere, or always alike
HIDDEN = ("layer_types", "architectures", "hidden_act", "model_type", "quantization_config")


def summarize(findings: CheckpointFindings) -> str:
    """Return the text that `inspect` prints."""
    lines = [findings.path]
    for title, entries in (
        ("checkpoint", _checkpoint(findings)),
        ("model", _model(findings.model)),
        ("weights", _weights(findings)),
        ("experts", _experts(findings)),
        ("tokenizer", _tokenizer(findings)),
        ("export", _export(findings)),
    ):
        for index, entry in enumerate(entries):
            lines.append(f"  {title if index == 0 else '':<11}{printable(entry)}")
    return "\n".join(lines)


def _checkpoint(findings: CheckpointFindings) -> Iterator[str]:
    yield f"{findings.model_type or 'no model_type'}, layout {findings.layout}"
    tensors = count_of(findings.tensors, "tensor")
    known = findings.parameters is not None
    yield f"{findings.parameters:,} parameters in {tensors}" if known else tensors
    yield from findings.notes


def _model(model: Mapping[str, object]) -> Iterator[str]:
    for key, value in model.items():
        if isinstance(value, Mapping):  # rope_scaling, for instance
            if key not in HIDDEN:
                yield f"{key} {', '.join(f'{name} {part}' for name, part in value.items())}"
        elif key not in HIDDEN:
            yield f"{key} {value}"


def _weights(findings: CheckpointFindings) -> Iterator[str]:
    yield _sizes(findings.dtypes)
    if findings.kinds is not None:
        yield _sizes(findings.kinds)
    shown = list(findings.files.items())[:MOST_FILES]
    for name, size in shown:
        yield f"{name} ({file_size(size)})"
    if len(findings.files) > len(shown):
        yield f"and {count_of(len(findings.files) - len(shown), 'more file')}"


def _sizes(parts: Mapping[str, int]) -> str:
    total = file_size(sum(parts.values()))
    return f"{total}: {', '.join(f'{name} {file_size(size)}' for name, size in parts.items())}"


def _experts(findings: CheckpointFindings) -> Iterator[str]:
    experts = findings.experts
    if experts is None:
        return
    if experts.storage == "mxfp4":
        yield "packed MXFP4"
    elif experts.exact is None:
        yield "dense; whether their values are MXFP4 is not known without --values"
    elif experts.exact:
        yield "dense, and every value is MXFP4: `export --experts mxfp4` loses nothing"
    else:
        yield f"dense, and not MXFP4: {experts.inexact} is the first with other values"


def _tokenizer(findings: CheckpointFindings) -> Iterator[str]:
    yield ", ".join(findings.side_files) or "none: name one with `export --tokenizer`"


def _export(findings: CheckpointFindings) -> Iterator[str]:
    if findings.refusal is not None or findings.export is None:
        yield f"refused: {findings.refusal}"
        return
    yield from _plan(findings.export)


def _plan(plan: Plan) -> Iterator[str]:
    linked = count_of(plan.linked, "weight")
    yield f"{linked} linked where they lie ({file_size(plan.linked_bytes)})"
    for entry in plan.written:
        lost = "without loss" if entry.loss is None else entry.loss
        yield f"{count_of(entry.weights, 'weight')} written anew ({file_size(entry.bytes)}): {lost}"
    if not plan.written:
        yield "no weight byte copied or converted"
    yield "--target ort: " + ("offered" if plan.ort is None else f"refused: {plan.ort}")
