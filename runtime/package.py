"""Open a package folder: read its manifest and check that its files are still those it was made with."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gptoss_onnx.errors import CheckpointError, PackageError
from gptoss_onnx.files import header_sha256
from gptoss_onnx.manifest import Manifest, WeightFile

GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class PackageFolder:
    """An opened package: its folder and its manifest; the weight files were checked when it was opened."""

    folder: Path
    manifest: Manifest

    @property
    def graph(self) -> Path:
        """Path of the ONNX file."""
        return self.folder / self.manifest.graph

    @property
    def weights_root(self) -> Path:
        """Folder the weight file names are relative to."""
        root = self.manifest.weights.root
        return self.folder if root is None else Path(root)

    @property
    def eos_tokens(self) -> tuple[int, ...]:
        """Token ids that end a text; see `special_ids`."""
        return special_ids(self.folder, self.manifest.model, "eos_token_id")

    def model_size(self, key: str) -> int:
        """Return an integer of the model configuration, such as `vocab_size`; raises PackageError where it is none."""
        value = self.manifest.model.get(key)
        if not isinstance(value, int):
            raise PackageError(f"{self.folder}: model.{key} in the manifest is {value!r}; export the package again")
        return value


def open_package(folder: str | os.PathLike[str]) -> PackageFolder:
    """Read the manifest of `folder` and check the graph and every weight file against it.

    Size and safetensors header must agree in every mode. For `link` and `reference` the modification time
    must agree too: those bytes belong to the checkpoint, and training that rewrites them in place keeps the
    header (the same tensors at the same offsets). A `copy`, and a file of origin `export`, is nobody else's,
    and copying the folder changes its times, so there the time is not compared.

    Raises PackageError naming the first file that is missing or differs, what was found and what was
    expected.
    """
    path = Path(folder).absolute()
    package = PackageFolder(path, Manifest.read(path))
    if not package.graph.is_file():
        raise PackageError(f"{package.graph}: no such file, but the manifest names it; export the package again")
    weights = package.manifest.weights
    if weights.mode == "reference" and not package.weights_root.is_dir():
        raise PackageError(
            f"{package.weights_root}: no such folder, but the package refers to the checkpoint there; "
            "put it back or export again"
        )
    for entry in weights.files:
        name = PurePosixPath(entry.name)
        if name.is_absolute() or ".." in name.parts:
            raise PackageError(f"{path}: manifest: weight file {entry.name!r}: expected a name below the weights' root")
        check_weight_file(package.weights_root / entry.name, entry, compare_time=is_shared(package.manifest, entry))
    return package


def special_ids(folder: Path, model: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Return token ids (none or more) from `generation_config.json`, else from the model configuration.

    Raises PackageError when the value is neither an integer nor a list of integers.
    """
    config = read_json(folder / GENERATION_CONFIG)
    source = GENERATION_CONFIG if config.get(key) is not None else "the model configuration"
    value = config.get(key) if config.get(key) is not None else model.get(key)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise PackageError(f"{folder}: {key} in {source} is {value!r}; expected an integer or a list of integers")
    return tuple(ids)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, {} where there is no file; raises PackageError when it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PackageError(f"{path}: not JSON ({error}); export the package again") from error
    if not isinstance(document, dict):
        raise PackageError(f"{path}: expected a JSON object, found {type(document).__name__}; export the package again")
    return document


def is_shared(manifest: Manifest, entry: WeightFile) -> bool:
    """Say whether a weight file is the checkpoint's own, which others may change."""
    return manifest.weights.mode != "copy" and entry.origin == "checkpoint"


def check_weight_file(path: Path, entry: WeightFile, *, compare_time: bool) -> None:
    """Raise PackageError unless a weight file is the one the manifest recorded: size, header, modification time."""
    try:
        stat = path.stat()
    except OSError as error:
        raise PackageError(
            f"{path}: cannot be read ({error.strerror}), but weights lie there; put it back or export again"
        ) from error
    if stat.st_size != entry.size:
        raise _changed(path, f"{stat.st_size} bytes", f"{entry.size}")
    try:
        header = header_sha256(path)
    except CheckpointError as error:
        raise PackageError(f"{error}; export again") from error
    if header != entry.header_sha256:
        raise _changed(path, f"safetensors header {header[:12]}…", f"{entry.header_sha256[:12]}…")
    if compare_time and stat.st_mtime_ns != entry.mtime_ns:
        raise _changed(path, f"modification time {stat.st_mtime_ns} ns", f"{entry.mtime_ns}")


def _changed(path: Path, found: str, expected: str) -> PackageError:
    return PackageError(
        f"{path}: changed since the package was written: found {found}, expected {expected}; export again"
    )
