"""`manifest.json`: what a package folder holds, shared by the exporter that writes it and every
client that reads it.

The JSON Schema in `manifest.schema.json` describes the same document for other languages; a test
keeps both in step.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from gptoss_onnx.choices import AdapterMode, Options, Provider, Target, WeightMode
from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import write_atomically
from gptoss_onnx.json_text import printable, read_json_object
from gptoss_onnx.manifest_check import check_manifest
from gptoss_onnx.manifest_format_1 import upgraded
from gptoss_onnx.typed_json import parse_object

MANIFEST_NAME = "manifest.json"
FORMAT = "gptoss-onnx"
FORMAT_VERSION = 2  # what is written; format 1 is read as well
# What leads from a stage to the next: its output there, its input here.
NEXT_HIDDEN, HIDDEN = "next_hidden", "hidden"
# of a folder an export is still writing, or was when it was interrupted
STAGING_SUFFIX = ".partial"

RoundedKind = Literal["dense-int8", "experts-int4", "experts-mxfp4"]


@dataclass(frozen=True)
class TensorSpec:
    """One graph input or output: its name, ONNX dtype (`int64`, `float32`, …) and shape, symbolic
    where a string.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class CacheLayer:
    """KV cache of one layer: buffers (batch, kv_heads, capacity, head_dim); `window` 0 means a full
    layer.

    The first `sink_tokens` m of a sequence stay in their slots, and a query sees them beside the
    last window − m; m is 0 for a full layer. The token at a later position p lives in slot
    m + (p − m) mod (capacity − m). In target `ort` a window layer keeps its last positions in order
    from slot 0 on instead, and takes a capacity of at least the window.
    """

    window: int
    sink_tokens: int
    kv_heads: int
    head_dim: int
    past_key: str
    past_value: str
    present_key: str
    present_value: str


@dataclass(frozen=True)
class OpUse:
    """How often the graph uses one custom op, and of which version of its domain."""

    domain: str
    name: str
    version: int
    count: int


@dataclass(frozen=True)
class WeightFile:
    """One safetensors file the graph's external data points into.

    `name` is relative to the weights' root. `size` in bytes, `mtime_ns` and the sha256 of the
    safetensors header are compared when the package is opened, so a checkpoint rewritten under its
    link is noticed. `sha256` of the whole file is null unless it was known for free (a hub blob's
    name) or asked for. `origin` says whose bytes they
    are: the `checkpoint`'s, linked, copied or referred to, or the package's own, which `export`
        computed.
    """

    name: str
    origin: Literal["checkpoint", "export"]
    size: int
    mtime_ns: int
    header_sha256: str
    sha256: str | None


@dataclass(frozen=True)
class Weights:
    """Where the weights lie and what was done to them.

    `mode` is `link` (hard links to the checkpoint's files), `copy` or `reference`; `root` is the
    absolute folder the names are relative to for `reference` and null otherwise (the package
    folder). `layout` names the source layout (`hf-mxfp4`, `hf-dense`, `openai-mxfp4`);
    `bit_identical` says that every weight that multiplies is the checkpoint's, bit for bit or in
    another form of exactly the same value (in target `ort` MXFP4 as 8-bit integers, bfloat16 as
    float32; with `--dense packed` bfloat16 in 12 bits; with `--experts mxfp4` experts that are
    MXFP4 by their values). Where it is false, `Manifest.lossy` names the weights that are not, and
    all others are.
    """

    mode: WeightMode
    root: str | None
    layout: str
    bit_identical: bool
    files: tuple[WeightFile, ...]


@dataclass(frozen=True)
class TensorError:
    """How far a rounded tensor is from the checkpoint's: the root mean square of the differences,
    over that of the numbers. 0 if and only if all numbers are as before.
    """

    name: str
    relative_rms: float


@dataclass(frozen=True)
class RoundedWeights:
    """Weights that the export rounded: those in `file` share a scale in blocks of `block`.

    `errors` are those of `experts-mxfp4`, tensor by tensor; other kinds have none.
    """

    kind: RoundedKind
    file: str
    block: int
    errors: tuple[TensorError, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the weights were measured, and rounding changed none."""
        return bool(self.errors) and not any(entry.relative_rms for entry in self.errors)


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter (LoRA) that the export added to the checkpoint's weights.

    `mode` says whether it is in the weights (`merge`) or beside them in the graph (`runtime`).
    `name` is that of its folder, `base` what it says of the model that it was trained on, for
    people to read. The sha256 are those of its adapter_config.json and adapter_model.safetensors:
    `validate` asks for the same files.
    """

    name: str
    mode: AdapterMode
    base: str | None
    config_sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class Stage:
    """The layers `first` to `end` − 1 of the `layers` of a model, in a package of their own."""

    first: int
    end: int
    layers: int

    @property
    def is_first(self) -> bool:
        """Whether it takes token ids, and not what another stage gives."""
        return self.first == 0

    @property
    def is_last(self) -> bool:
        """Whether it gives logits, and not what another stage takes."""
        return self.end == self.layers

    def __str__(self) -> str:
        return f"layers {self.first} to {self.end - 1} of {self.layers}"


@dataclass(frozen=True)
class Manifest:
    """The whole document; see `manifest.schema.json`.

    `model` is what config.json said, for people to read: sessions and clients take nothing from it.
    `longest` is how many positions a sequence may have. `eos_tokens` end a text, unless
    `generation_config.json` names others. `onnxruntime` is the least version of ONNX Runtime that
    runs the graph, as `major.minor`. `options` are those that `export` was given; manifests written
    before they were recorded have none. `stage` says which layers these are where they are not all;
    `cache` has an entry for each of them. `adapters` are in the order in which they were added.
    """

    exporter: str
    target: Target
    onnxruntime: str
    model: Mapping[str, Any]
    vocab_size: int
    longest: int
    eos_tokens: tuple[int, ...]
    graph: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    kv_dtype: str
    cache: tuple[CacheLayer, ...]
    ops: tuple[OpUse, ...]
    weights: Weights
    rounded: tuple[RoundedWeights, ...]
    tokenizer_files: tuple[str, ...]
    lossy: tuple[str, ...]
    unsupported: tuple[str, ...]
    options: Options | None = None
    stage: Stage | None = None
    adapters: tuple[Adapter, ...] = ()

    def has_op(self, name: str) -> bool:
        """Say whether the graph uses the custom op of this name."""
        return any(use.name == name for use in self.ops)

    def offers(self, what: str) -> bool:
        """Say whether the package can do something, in the words of `gptoss_onnx.offered`."""
        return what not in self.unsupported

    def runs_on(self, provider: Provider) -> bool:
        """Say whether the graph is made for an execution provider."""
        return self.offers(f"provider {provider}")

    def document(self) -> dict[str, Any]:
        """Return what `manifest.json` says, which leaves out `options`, `stage`, `adapters` and the
        errors of what is rounded where there are none.
        """
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        absent = [key for key in ("options", "stage", "adapters") if not document[key]]
        for entry in document["rounded"]:
            if not entry["errors"]:
                del entry["errors"]
        return {key: value for key, value in document.items() if key not in absent}

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into `folder` atomically; a folder without it is not a package."""
        text = json.dumps(self.document(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(folder / MANIFEST_NAME, text.encode())

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the manifest of a package folder.

        Raises PackageError if the folder is not a package, if its format version is unknown, or if
        an entry has a value that no export writes (see `manifest_check`).
        """
        folder = Path(folder)
        document = _load(folder)
        found = document.pop("format_version", None)
        if document.pop("format", None) != FORMAT:
            raise PackageError(
                f"{folder / MANIFEST_NAME}: not a {FORMAT} manifest (no format: {FORMAT})"
            )
        if type(found) is not int or not 1 <= found <= FORMAT_VERSION:
            is_newer = isinstance(found, int) and found > FORMAT_VERSION
            raise PackageError(
                f"{folder / MANIFEST_NAME}: format_version is {found!r:.60}, this gptoss-onnx "
                f"reads 1 to {FORMAT_VERSION}: "
                f"{'upgrade gptoss-onnx' if is_newer else 'export it again'}"
            )
        try:
            manifest = parse_object(cls, upgraded(document) if found == 1 else document, "")
            check_manifest(manifest)
        except (TypeError, ValueError) as error:
            problem = printable(str(error))
            raise PackageError(
                f"{folder / MANIFEST_NAME}: malformed ({problem}); export the package again"
            ) from error
        return manifest


def _load(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise PackageError(
            f"{folder}: not a folder; expected a package written by `gptoss-onnx export`"
        )
    if folder.resolve().name.endswith(STAGING_SUFFIX):
        raise PackageError(
            f"{folder}: not a package: the unfinished work of an interrupted export; delete it"
        )
    path = folder / MANIFEST_NAME
    try:
        return read_json_object(path, PackageError)
    except FileNotFoundError:
        raise PackageError(
            f"{folder}: not a package: it has no {MANIFEST_NAME} (an export that finished writes "
            "it last)"
        ) from None
