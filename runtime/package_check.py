"""Open a package: check that its files are still those it was made with.

A package may come from a stranger, and its manifest and its graph name files. **One rule**, the
same in the clients of other languages: every file of the package is a plain name of a regular file
in its folder, and what the graph reads outside of itself is one tensor each, or a part of one, of a
safetensors file that the manifest lists.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from gptoss_onnx.errors import PackageError
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import Package
from gptoss_onnx.runtime.arguments import folder_path
from gptoss_onnx.runtime.graph_file import GraphFile
from gptoss_onnx.runtime.weight_files import check_weight_file, lies_in_one, tensor_ranges


def open_package(folder: str | os.PathLike[str]) -> Package:
    """Read the manifest of `folder` and check the graph and every weight file against it.

    Size and safetensors header must agree in every mode. For `link` and `reference` the
    modification time must agree too: those bytes belong to the checkpoint, and training that
    rewrites them in place keeps the header (the same tensors at the same offsets). A `copy`, and a
    file of origin `export`, belongs to the package alone, and copying the folder changes its times,
    so there the time is not compared.

    Raises InputError if `folder` is not a path, and PackageError naming the first file that is
    missing or differs, what was found and what was expected, and if the graph reads anything but
    tensors of the weight files.
    """
    path = Path(folder_path("package", folder)).absolute()
    package = Package(path, Manifest.read(path))
    weights = package.manifest.weights
    if weights.mode == "reference" and not package.weights_root.is_dir():
        raise PackageError(
            f"{package.weights_root}: no such folder, but the package refers to the checkpoint "
            "there; put it back or export again"
        )
    graph = GraphFile.read(package.graph)
    tensors = {}
    for entry in weights.files:
        file = package.weight_path(entry)
        header = check_weight_file(file, entry, compare_time=package.is_shared(entry))
        tensors[entry.name] = tensor_ranges(file, header)
    _check_external_data(package.graph, graph, tensors)
    return package


def open_whole(folder: str | os.PathLike[str]) -> Package:
    """Open a package that runs by itself.

    Raises PackageError for a stage, and what `open_package` does.
    """
    package = open_package(folder)
    if package.manifest.stage is not None:
        raise PackageError(
            f"{package.folder}: found {package.manifest.stage}, expected all of them: run it "
            "beside the others with StagedSession, and validate an export of all layers"
        )
    return package


def _check_external_data(
    path: Path, graph: GraphFile, tensors: Mapping[str, list[tuple[int, int]]]
) -> None:
    """Refuse a graph that reads anything but tensors of the weight files.

    `tensors` are the byte ranges of each file by its name, and `path` names the graph in messages.
    """
    for initializer in graph.initializers.values():
        found = initializer.external
        if found is None:
            continue
        if found.location not in tensors:
            raise PackageError(
                f"{path}: {initializer.name!r:.80} reads the file {found.location!r:.80}, expected "
                "one of weights.files in the manifest; export the package again"
            )
        if not lies_in_one(tensors[found.location], found.offset, found.length):
            raise PackageError(
                f"{path}: {initializer.name!r:.80} reads {found.length} bytes at {found.offset} of "
                f"{found.location}, expected one tensor of that file, or a part of one; export the "
                "package again"
            )
