"""A package of the first layers of another one, in a temporary folder; no weight is copied."""

import dataclasses
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter.cut import keep_first_layers
from gptoss_onnx.files import read_file
from gptoss_onnx.manifest import Manifest, WeightFile
from gptoss_onnx.package import EXPERT_CHECK_FILE, Package, own_file
from gptoss_onnx.runtime.graph_file import GRAPH_LIMIT


@contextmanager
def first_layers(package: Package, count: int) -> Iterator[Package]:
    """Yield a package of the first `count` layers, which refers to the weights of `package`.

    Args:
        package: whose files were checked, as by `runtime.open_package`.
        count: layers to keep, at least one.

    Raises:
        InputError: there are not so many layers.
        PackageError: the graph cannot be cut.
    """
    total = len(package.manifest.cache)
    if not 1 <= count <= total:
        raise InputError(f"slice: found {count}, expected 1 to {total}, the layers of the package")
    whole = ir.from_proto(
        onnx.load_model_from_string(read_file(package.graph, GRAPH_LIMIT, PackageError))
    )
    keep_first_layers(whole, count, total)
    model = ir.to_proto(whole)
    with tempfile.TemporaryDirectory(prefix="gptoss-onnx-slice-") as name:
        folder = Path(name)
        (folder / package.manifest.graph).write_bytes(model.SerializeToString())
        check = own_file(package.folder, EXPERT_CHECK_FILE)
        if check.exists():
            shutil.copyfile(check, folder / EXPERT_CHECK_FILE)
        manifest = _manifest(package, model, count)
        manifest.write(folder)
        yield Package(folder, manifest)


def _manifest(package: Package, model: onnx.ModelProto, count: int) -> Manifest:
    """Return the manifest of the slice. What is rounded is judged with the whole package's."""
    manifest = package.manifest
    names = {value.name for value in (*model.graph.input, *model.graph.output)}
    uses = Counter((node.domain, node.op_type) for node in model.graph.node)
    ops = [
        dataclasses.replace(use, count=uses[use.domain, use.name])
        for use in manifest.ops
        if uses[use.domain, use.name]
    ]
    weights = dataclasses.replace(
        manifest.weights,
        mode="reference",
        root=str(package.weights_root.resolve()),
        files=tuple(_as_it_lies(package, entry) for entry in manifest.weights.files),
    )
    return dataclasses.replace(
        manifest,
        inputs=tuple(entry for entry in manifest.inputs if entry.name in names),
        outputs=tuple(entry for entry in manifest.outputs if entry.name in names),
        cache=manifest.cache[:count],
        ops=tuple(ops),
        weights=weights,
        rounded=(),
        tokenizer_files=(),
    )


def _as_it_lies(package: Package, entry: WeightFile) -> WeightFile:
    """Return the entry as one that is referred to, with the time of the file: a copy of a package
    does not keep it.
    """
    time = package.weight_path(entry).stat().st_mtime_ns
    return dataclasses.replace(entry, origin="checkpoint", mtime_ns=time)
