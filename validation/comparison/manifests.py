"""What a manifest says, against what that of a fresh export says."""

from dataclasses import replace

from gptoss_onnx.checkpoint.folder_kinds import TOKENIZER
from gptoss_onnx.exporter.describe import describe, lost_by, rounded_by
from gptoss_onnx.exporter.side_files import generation_settings
from gptoss_onnx.validation.comparison.findings import Findings
from gptoss_onnx.validation.comparison.fresh import FreshExport

WHERE = "manifest.json"
# What tells sessions and clients how to run the graph. The weight files' sizes and times are
# compared when the package is opened, and its configuration before anything else.
FIELDS = (
    "onnxruntime",
    "vocab_size",
    "longest",
    "eos_tokens",
    "opset",
    "inputs",
    "outputs",
    "kv_dtype",
    "ops",
    "rounded",
    "lossy",
    "unsupported",
)


def compare_manifests(fresh: FreshExport, findings: Findings) -> None:
    """Add every entry that differs; cache layers one by one."""
    found = fresh.package.manifest
    # whose errors are compared where the weights are computed again
    errors = tuple(error for entry in found.rounded for error in entry.errors)
    rounded = rounded_by(fresh.options, errors)
    lost = lost_by(rounded)
    expected = describe(
        fresh.checkpoint,
        fresh.expected,
        fresh.options,
        weights=replace(found.weights, bit_identical=fresh.planned.exact and not lost),
        rounded=rounded,
        lossy=fresh.planned.lossy + lost,
        tokenizer_files=found.tokenizer_files,
        eos_tokens=generation_settings(fresh.checkpoint).eos_tokens,
        stage=found.stage,
    )
    # `export --tokenizer` has added it: the checkpoint does not say what ends its texts
    has_another = TOKENIZER in found.tokenizer_files and not fresh.checkpoint.path_of(TOKENIZER)
    for name in FIELDS:
        if name == "eos_tokens" and (found.options is None or has_another):
            continue  # older exporters had other rules for these, and another tokenizer has others
        ours, theirs = getattr(found, name), getattr(expected, name)
        if ours != theirs:
            findings.add(WHERE, name, ours, theirs)
    exact = found.weights.bit_identical, expected.weights.bit_identical
    if exact[0] != exact[1]:
        findings.add(WHERE, "weights.bit_identical", *exact)
    if len(found.cache) != len(expected.cache):
        findings.add(WHERE, "cache", f"{len(found.cache)} layers", f"{len(expected.cache)} layers")
    for layer, (mine, wanted) in enumerate(zip(found.cache, expected.cache, strict=False)):
        for name, value in vars(wanted).items():
            if getattr(mine, name) != value:
                findings.add(f"layers.{layer} cache", f"{WHERE} {name}", getattr(mine, name), value)
