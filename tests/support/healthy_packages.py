"""Healthy packages of many shapes and kinds, and how near `validate` comes to alarm on each."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.rounded import ROUNDINGS
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from gptoss_onnx.validation import validate
from gptoss_onnx.validation.judging.limits import EXACT
from gptoss_onnx.validation.report.document import FAILURES


@dataclass(frozen=True)
class Kind:
    """One way to export and run: options of `export` and of `validate`."""

    exported: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    mxfp4: bool = False  # whether it takes MXFP4 experts only


# Cases that measure what the rounding of weights costs, at limits of their own.
AGAINST_OWN = {rounding.name for rounding in ROUNDINGS.values()}
ORT = {"target": "ort"}
KINDS: Mapping[str, Kind] = {
    "native": Kind(run={"kernels": "native"}),
    "portable": Kind(run={"kernels": "portable"}),
    "ort": Kind(ORT),
    "ort, dense checkpoint": Kind(ORT | {"dense": "checkpoint"}),
    "ort, int8 experts": Kind(ORT | {"experts": "int8"}, mxfp4=True),
    "native, int8 weights": Kind({"dense": "int8"}, {"kernels": "native"}),
    "native, packed weights": Kind({"dense": "packed"}, {"kernels": "native"}),
    "native, float16 cache": Kind({"kv_dtype": "float16"}, {"kernels": "native"}),
    "native, bfloat16 cache": Kind({"kv_dtype": "bfloat16"}, {"kernels": "native"}),
    "ort, float16 cache": Kind(ORT | {"kv_dtype": "float16"}),
    "native, bf16": Kind(run={"kernels": "native", "activations": "bf16"}),
    "native, int8": Kind(run={"kernels": "native", "activations": "int8"}),
}
# How often each is drawn, of 47.
DRAWN = (
    *["native"] * 11,
    *["portable"] * 10,
    *["ort"] * 5,
    *["ort, dense checkpoint"] * 4,
    *["ort, int8 experts"] * 3,
    *["native, int8 weights"] * 3,
    *["native, packed weights"] * 3,
    *["native, float16 cache"] * 2,
    *["native, bfloat16 cache"] * 2,
    *["ort, float16 cache"] * 1,
    *["native, bf16"] * 1,
    *["native, int8"] * 2,
)


@dataclass(frozen=True)
class Healthy:
    """A checkpoint of random weights, and how it is exported and run."""

    number: int
    kind: str
    document: dict[str, Any]
    layout: str | None
    dtype: str

    def __str__(self) -> str:
        return f"{self.number:2} {self.kind}: {self.document['model_type']}, {self.dtype}"


def healthy(count: int, seed: int) -> Iterator[Healthy]:
    """Yield `count` packages to make, drawn from a seed; the first 47 cover every kind."""
    draw = random.Random(seed)
    for number in range(count):
        kind = DRAWN[number * 7 % len(DRAWN)]
        lossy = KINDS[kind].run.get("activations") or KINDS[kind].exported.get("kv_dtype")
        mxfp4 = KINDS[kind].mxfp4 or draw.random() < 0.6
        others = ("mixtral", "qwen3_moe", "gpt_oss_lab", "qwen3", "llama", "mistral")
        if KINDS[kind].mxfp4 or lossy or draw.random() < 0.65:
            document, layout = gpt_oss(draw), "hf-mxfp4" if mxfp4 else "hf-bf16"
        else:
            document, layout = tiny_document(draw.choice(others)), None
        yield Healthy(number, kind, document, layout, draw.choice(("BF16", "BF16", "F16", "F32")))


def gpt_oss(draw: random.Random) -> dict[str, Any]:
    """Return the config.json of a gpt-oss of random shape."""
    layers = draw.choice((1, 2, 3, 4, 6, 12))
    kv_heads = draw.choice((1, 2, 4))
    experts = draw.choice((3, 4, 8, 16, 32))
    types = [draw.choice(("sliding_attention", "full_attention")) for _ in range(layers)]
    window = draw.choice((1, 2, 5, 8, 16, 33))
    return tiny_document(
        num_hidden_layers=layers,
        layer_types=types,
        num_key_value_heads=kv_heads,
        num_attention_heads=kv_heads * draw.choice((1, 2, 4)),
        head_dim=draw.choice((8, 16, 32, 64)),
        hidden_size=draw.choice((32, 64, 96, 192, 320)),
        intermediate_size=draw.choice((32, 64, 96, 256)),
        num_local_experts=experts,
        num_experts_per_tok=draw.randint(1, min(experts - 1, 5)),
        sliding_window=window if "sliding_attention" in types else None,
        vocab_size=draw.choice((50, 320, 1111)),
        attention_bias=draw.random() < 0.7,
        tie_word_embeddings=draw.random() < 0.3,
    )


@dataclass(frozen=True)
class Measured:
    """What one case found in one column of one package, as shares of what was allowed."""

    kind: str
    case: str
    passed: bool
    max_abs: float
    kl: float
    note: str


def measure(package: Healthy, folder: Path) -> list[Measured]:
    """Make a package in `folder`, validate it, and return what its cases found."""
    kind = KINDS[package.kind]
    checkpoint = folder / "checkpoint"
    make_checkpoint(
        checkpoint,
        package.document,
        layout=package.layout,
        dtype=package.dtype,
        seed=100 + package.number,
    )
    exported = export(checkpoint, folder / "package", **kind.exported)
    report = validate(exported.folder, checkpoint, **kind.run)
    limits = {column.name: column.limits for column in report.columns}
    compared = [
        Measured(package.kind, entry.name, entry.state not in FAILURES, 0.0, 0.0, entry.note)
        for entry in report.comparisons
    ]
    return compared + [
        Measured(
            package.kind,
            f"{cell.column}, {cell.case}",
            cell.state not in FAILURES,
            0.0 if found is None else found.max_abs / held.max_abs,
            0.0 if found is None else found.kl / held.kl,
            cell.note,
        )
        for cell in report.cells
        for found, held in [(cell.difference, limits[cell.column] or EXACT)]
        if cell.case not in AGAINST_OWN
    ]
