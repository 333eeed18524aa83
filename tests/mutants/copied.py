"""Copied: a package's copy that is changed and then written as a program would that knows the
format.
"""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Self

import onnx
from onnx import FunctionProto, NodeProto, TensorProto

from gptoss_onnx.files import header_sha256

GRAPH = "model.onnx"
MANIFEST = "manifest.json"


class Copied:
    """A copy of a package.

    Attributes:
        folder: where it lies.
        model: its graph, without its weights.
        manifest: its manifest, as JSON says it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = onnx.load(folder / GRAPH, load_external_data=False)
        self.manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        self._counted = self._count()

    @classmethod
    def of(cls, package: Path, folder: Path) -> Self:
        """Copy a package to a folder, in place of what is there."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(package, folder)
        return cls(folder)

    def node(self, name: str) -> NodeProto:
        """Return the node of this name; `model.` may be left out."""
        found = [node for node in self.model.graph.node if node.name.removeprefix("model.") == name]
        assert found, f"no node {name}"
        return found[0]

    def function(self, name: str) -> FunctionProto:
        """Return a function body."""
        return next(function for function in self.model.functions if function.name == name)

    def tensor(self, name: str) -> TensorProto:
        """Return the initializer of this name; `model.` may be left out."""
        found = [
            it for it in self.model.graph.initializer if it.name.removeprefix("model.") == name
        ]
        assert found, f"no initializer {name}"
        return found[0]

    def bytes_of(self, name: str) -> bytearray:
        """Return the bytes of a weight, which lie in a weight file."""
        location, offset, length = self._external(name)
        with (self.folder / location).open("rb") as file:
            file.seek(offset)
            return bytearray(file.read(length))

    def put_bytes(self, name: str, content: bytes | bytearray) -> None:
        """Write the bytes of a weight, as many as there were."""
        location, offset, length = self._external(name)
        assert len(content) == length
        with (self.folder / location).open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def write(self) -> None:
        """Write graph and manifest; the manifest's record of the files and ops follows them."""
        (self.folder / GRAPH).write_bytes(self.model.SerializeToString(deterministic=True))
        for entry in self.manifest["weights"]["files"]:
            path = self.folder / entry["name"]
            if path.exists():
                entry["size"], entry["mtime_ns"] = path.stat().st_size, path.stat().st_mtime_ns
                entry["header_sha256"] = header_sha256(path)
        counted = self._count()
        if counted != self._counted:  # otherwise the entry may be what was changed
            for use in self.manifest["ops"]:
                use["count"] = counted[use["domain"], use["name"]]
        (self.folder / MANIFEST).write_text(json.dumps(self.manifest, indent=2))

    def _external(self, name: str) -> tuple[str, int, int]:
        entries = {entry.key: entry.value for entry in self.tensor(name).external_data}
        return entries["location"], int(entries["offset"]), int(entries["length"])

    def _count(self) -> Counter[tuple[str, str]]:
        return Counter((node.domain, node.op_type) for node in self.model.graph.node if node.domain)
