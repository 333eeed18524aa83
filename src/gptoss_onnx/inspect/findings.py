"""What `inspect` finds out about a package beyond its manifest: cache sizes, and the state of its
files.

B batch (here 1), K kv heads, D head dim.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import CacheLayer, Manifest, WeightFile
from gptoss_onnx.package import (
    GOLDEN_FILE,
    PARITY_FILE,
    TEMPLATE_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    Package,
    read_own_json,
)
from gptoss_onnx.runtime.cache_layout import slot_bytes
from gptoss_onnx.runtime.kv_cache import PREFILL_CHUNK
from gptoss_onnx.runtime.target import contract_of
from gptoss_onnx.runtime.weight_files import check_weight_file

State = Literal["unchanged", "changed", "missing"]


@dataclass(frozen=True)
class LayerCache:
    """KV cache of one layer and row: bytes of a slot (key and value), and the slots of a window
    layer's ring.

    `ring_slots` is what a session takes with its usual prefill chunk and nothing reserved for
    rewinding; None for a full layer, which has a slot for every token.
    """

    layer: int
    window: int
    bytes_per_slot: int
    ring_slots: int | None


@dataclass(frozen=True)
class FileState:
    """A file the package needs: its size as recorded (None: not recorded) and what is there now."""

    name: str
    size: int | None
    state: State


@dataclass(frozen=True)
class Findings:
    """A package folder, its manifest, and what was computed from them."""

    folder: Path
    manifest: Manifest
    cache: tuple[LayerCache, ...]
    graph: FileState
    weights: tuple[FileState, ...]
    golden: bool
    parity: bool
    tokenizer: bool
    chat_template: bool

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Look at a package folder; raises PackageError if it is not a package."""
        manifest = Manifest.read(folder)
        package = Package(folder, manifest)
        graph = package.graph
        config = read_own_json(folder, TOKENIZER_CONFIG)
        return cls(
            folder=folder,
            manifest=manifest,
            cache=tuple(
                _cache(index, layer, manifest) for index, layer in enumerate(manifest.cache)
            ),
            graph=FileState(
                manifest.graph,
                graph.stat().st_size if graph.is_file() else None,
                "unchanged" if graph.is_file() else "missing",
            ),
            weights=tuple(
                FileState(
                    entry.name,
                    entry.size,
                    _state(package.weight_path(entry), entry, package.is_shared(entry)),
                )
                for entry in manifest.weights.files
            ),
            golden=(folder / GOLDEN_FILE).is_file(),
            parity=(folder / PARITY_FILE).is_file(),
            tokenizer=(folder / TOKENIZER_FILE).is_file(),
            chat_template=(folder / TEMPLATE_FILE).is_file() or bool(config.get("chat_template")),
        )

    @property
    def bytes_per_token(self) -> int:
        """What one more token of one sequence costs: full layers grow, rings do not."""
        return sum(layer.bytes_per_slot for layer in self.cache if layer.ring_slots is None)

    @property
    def ring_bytes(self) -> int:
        """What the rings of one sequence take together, however long it is."""
        return sum(
            layer.bytes_per_slot * layer.ring_slots
            for layer in self.cache
            if layer.ring_slots is not None
        )

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's document with one more key, `computed`."""
        computed = {
            "folder": str(self.folder),
            "cache": {
                "bytes_per_token": self.bytes_per_token,
                "ring_bytes": self.ring_bytes,
                "layers": [asdict(layer) for layer in self.cache],
            },
            "graph": asdict(self.graph),
            "weights": [asdict(entry) for entry in self.weights],
            "golden": self.golden,
            "parity": self.parity,
            "tokenizer": self.tokenizer,
            "chat_template": self.chat_template,
        }
        return {**self.manifest.document(), "computed": computed}


def _cache(index: int, layer: CacheLayer, manifest: Manifest) -> LayerCache:
    plenty = layer.window + PREFILL_CHUNK  # a capacity at which the ring no longer grows
    layout = contract_of(manifest).layout
    ring = (
        layout.slots(layer, batch=1, capacity=plenty, reserve=0, chunk=PREFILL_CHUNK)
        if layer.window
        else None
    )
    return LayerCache(index, layer.window, slot_bytes(layer, manifest.kv_dtype), ring)


def _state(path: Path, entry: WeightFile, compare_time: bool) -> State:
    """Compare a weight file with what the manifest recorded, as opening the package does."""
    if not path.exists():
        return "missing"
    try:
        check_weight_file(path, entry, compare_time=compare_time)
    except PackageError:
        return "changed"
    return "unchanged"
