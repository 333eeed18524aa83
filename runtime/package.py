"""Open a package folder: read its manifest and check that its files are still those it was made
with.

A package may come from a stranger, and its manifest and its graph name files. **One rule**, the
same in the clients of other languages: every file of the package is a plain name of a regular file
in its folder, and what the graph reads outside of itself is exactly one tensor each of a
safetensors file that the manifest lists.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.errors import PackageError
from gptoss_onnx.files import is_plain_name, read_file
from gptoss_onnx.json_text import read_json_object
from gptoss_onnx.manifest import Manifest, WeightFile
from gptoss_onnx.runtime.arguments import folder_path
from gptoss_onnx.runtime.graph_file import GraphFile
from gptoss_onnx.runtime.weight_files import check_weight_file, tensor_ranges

GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class PackageFolder:
    """An opened package: its folder and its manifest; its files were checked when it was opened."""

    folder: Path
    manifest: Manifest

    @property
    def graph(self) -> Path:
        """Path of the ONNX file; raises PackageError where it is no regular file of the package."""
        return own_file(self.folder, self.manifest.graph)

    @property
    def weights_root(self) -> Path:
        """Folder the weight file names are relative to."""
        root = self.manifest.weights.root
        return self.folder if root is None else Path(root)

    @property
    def eos_tokens(self) -> tuple[int, ...]:
        """Token ids that end a text; see `special_ids`."""
        return special_ids(self.folder, self.manifest.model, "eos_token_id")

    def weight_path(self, entry: WeightFile) -> Path:
        """Return the path of a weight file; raises PackageError where it leads out of the
        package.
        """
        if self.manifest.weights.root is None:
            return own_file(self.folder, entry.name)
        path = self.weights_root / entry.name
        _refuse_leading_out(path, self.weights_root)
        return path


def open_package(folder: str | os.PathLike[str]) -> PackageFolder:
    """Read the manifest of `folder` and check the graph and every weight file against it.

    Size and safetensors header must agree in every mode. For `link` and `reference` the
    modification time must agree too: those bytes belong to the checkpoint, and training that
    rewrites them in place keeps the header (the same tensors at the same offsets). A `copy`, and a
    file of origin `export`, is nobody else's, and copying the folder changes its times, so there
    the time is not compared.

    Raises InputError for what is no path, and PackageError naming the first file that is missing or
    differs, what was found and what was expected, and for a graph that reads anything but tensors
    of the weight files.
    """
    path = Path(folder_path("package", folder)).absolute()
    package = PackageFolder(path, Manifest.read(path))
    weights = package.manifest.weights
    if weights.mode == "reference" and not package.weights_root.is_dir():
        raise PackageError(
            f"{package.weights_root}: no such folder, but the package refers to the checkpoint "
            "there; "
            "put it back or export again"
        )
    graph = GraphFile.read(package.graph)
    tensors = {}
    for entry in weights.files:
        file = package.weight_path(entry)
        header = check_weight_file(file, entry, compare_time=is_shared(package.manifest, entry))
        tensors[entry.name] = tensor_ranges(file, header)
    _check_external_data(package.graph, graph, tensors)
    return package


def own_file(folder: Path, name: str) -> Path:
    """Return the path of a file of the package.

    Raises PackageError where the name is not a plain one, where it is a link that leads out of the
    folder, or where something else than a regular file lies there. A file that is missing is the
    reader's to tell.
    """
    if not is_plain_name(name):
        raise PackageError(f"{folder}: found the file name {name!r:.60}, expected a plain one")
    path = folder / name
    _refuse_leading_out(path, folder)
    if path.exists() and not path.is_file():
        raise PackageError(f"{path}: found something else than a file; export the package again")
    return path


def read_own_file(folder: Path, name: str, limit: int) -> bytes:
    """Return the bytes of a file of the package, `limit` at most.

    Raises FileNotFoundError where there is no such file, PackageError where it leads out of the
    package or is larger.
    """
    return read_file(own_file(folder, name), limit, PackageError)


def read_own_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of the package, {} where there is no such file.

    Raises PackageError where it leads out of the package, or is not a JSON object.
    """
    try:
        return read_json_object(own_file(folder, name), PackageError)
    except FileNotFoundError:
        return {}


def special_ids(folder: Path, model: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Return token ids (none or more) from `generation_config.json`, else from the model
    configuration.

    Raises PackageError when the value is neither a token id nor a list of them.
    """
    config = read_own_json(folder, GENERATION_CONFIG)
    source = GENERATION_CONFIG if config.get(key) is not None else "the model configuration"
    value = config.get(key) if config.get(key) is not None else model.get(key)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(token) is int and 0 <= token < 1 << 31 for token in ids):
        raise PackageError(
            f"{folder}: {key} in {source} is {value!r:.60}; expected a token id or a list of token "
            "ids"
        )
    return tuple(ids)


def _refuse_leading_out(path: Path, folder: Path) -> None:
    try:
        real = path.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise PackageError(f"{path}: cannot be followed ({error})") from error
    if not real.is_relative_to(folder.resolve()):
        raise PackageError(f"{path}: found a link to {real}, expected a file in {folder}")


def is_shared(manifest: Manifest, entry: WeightFile) -> bool:
    """Say whether a weight file is the checkpoint's own, which others may change."""
    return manifest.weights.mode != "copy" and entry.origin == "checkpoint"


def _check_external_data(
    path: Path, graph: GraphFile, tensors: Mapping[str, frozenset[tuple[int, int]]]
) -> None:
    """Refuse a graph that reads anything but tensors of the weight files, each of them whole.

    `tensors` are the byte ranges of each file by its name, and `path` names the graph in messages.
    """
    for initializer in graph.initializers.values():
        found = initializer.external
        if found is None:
            continue
        if found.location not in tensors:
            raise PackageError(
                f"{path}: {initializer.name!r:.80} reads the file {found.location!r:.80}, expected "
                "one of "
                "weights.files in the manifest; export the package again"
            )
        if (found.offset, found.length) not in tensors[found.location]:
            raise PackageError(
                f"{path}: {initializer.name!r:.80} reads {found.length} bytes at {found.offset} of "
                f"{found.location}, expected exactly one tensor of that file; export the package "
                "again"
            )
