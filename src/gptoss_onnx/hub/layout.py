"""Which files of a package go where in a repository of the hub.

The package itself lies in a folder, `onnx/` by convention. At the root lie the card and what the
hub and its libraries look for there: configuration and tokenizer. Nothing else is taken from the
package's folder, whatever lies in it.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.files import is_plain_name
from gptoss_onnx.hub.card import card, known_origin, own_report
from gptoss_onnx.hub.origin import CARD_FILE, LICENCE_FILE, is_ours, read_beside
from gptoss_onnx.manifest import MANIFEST_NAME
from gptoss_onnx.package import (
    EXPERT_CHECK_FILE,
    GENAI_CONFIG,
    GENERATION_CONFIG,
    GOLDEN_FILE,
    PARITY_FILE,
    Package,
    own_file,
)

CONFIG = "config.json"
_SIDE_FILES = (GENERATION_CONFIG, GENAI_CONFIG, EXPERT_CHECK_FILE, PARITY_FILE)


@dataclass(frozen=True)
class Upload:
    """A file for a repository: its path there, and its bytes or where they lie."""

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """Bytes."""
        if isinstance(self.content, bytes):
            return len(self.content)
        return self.content.stat().st_size


def uploads(package: Package, folder: str, with_root: bool) -> list[Upload]:
    """Return what a repository gets of a package whose files were checked.

    Args:
        package: as `open_package` returns it.
        folder: of the repository, for the package; plain names with `/` between them.
        with_root: whether the repository is the package's own, so that the root is written, too;
            else the card goes into `folder`.

    Raises InputError for a folder that is none, and PackageError for a file that is missing or that
    leads out of the package.
    """
    if not all(is_plain_name(name) and not name.startswith(".") for name in folder.split("/")):
        raise InputError(
            f"--path: found {folder[:60]!r}, expected names of folders with / between them"
        )
    manifest = package.manifest
    found = [
        Upload(MANIFEST_NAME, _manifest(package)),
        Upload(manifest.graph, _existing(package.graph)),
        *(Upload(entry.name, package.weight_path(entry)) for entry in manifest.weights.files),
        *_side_files(package, (*manifest.tokenizer_files, *_SIDE_FILES)),
        *_golden(package),
    ]
    inside = [replace(upload, path=f"{folder}/{upload.path}") for upload in found]
    if not with_root:
        return [*inside, *(replace(it, path=f"{folder}/{it.path}") for it in _card(package))]
    config = Upload(CONFIG, _json(manifest.model))
    root = _side_files(package, (*manifest.tokenizer_files, GENERATION_CONFIG))
    return [*_card(package), config, *root, *inside]


def _manifest(package: Package) -> bytes:
    """Return the manifest of a package whose weights are its own: those of a repository are, and a
    download changes the times that links are known by.
    """
    manifest = package.manifest
    for entry in manifest.weights.files:
        if not is_plain_name(entry.name):
            raise PackageError(
                f"{package.folder}: its weights lie in several folders ({entry.name[:80]}), "
                "expected one: export it again with --weights copy"
            )
    own = replace(manifest, weights=replace(manifest.weights, mode="copy", root=None))
    return _json(own.document())


def _side_files(package: Package, names: tuple[str, ...]) -> list[Upload]:
    paths = ((name, own_file(package.folder, name)) for name in dict.fromkeys(names))
    return [Upload(name, path) for name, path in paths if path.is_file()]


def _golden(package: Package) -> list[Upload]:
    folder, _, name = GOLDEN_FILE.partition("/")
    if not (package.folder / folder).is_dir():
        return []
    path = own_file((package.folder / folder).resolve(), name)
    if not path.resolve().is_relative_to(package.folder.resolve()):
        raise PackageError(f"{path}: found a link out of {package.folder}, expected a file in it")
    return [Upload(GOLDEN_FILE, path)] if path.is_file() else []


def _card(package: Package) -> list[Upload]:
    """Return the card and the licence; a package without a card of its own gets one."""
    own = read_beside(package.folder, CARD_FILE)
    licence = read_beside(package.folder, LICENCE_FILE)
    if own is None:
        made = card(
            package.manifest, package.folder.name, known_origin(package), own_report(package)
        )
        own = made.encode()
    files = [Upload(CARD_FILE, own)]
    if licence is not None and is_ours(own):
        files.append(Upload(LICENCE_FILE, licence))
    return files


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise PackageError(f"{path}: no such file; export the package again")
    return path


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
