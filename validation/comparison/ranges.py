"""Which tensor of which file each initializer of a graph reads: in a package, and in a fresh
export.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import onnx

from gptoss_onnx.checkpoint.names import plain_name
from gptoss_onnx.checkpoint.tensors import TensorInfo
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter.planned import Planned
from gptoss_onnx.files import safetensors_header
from gptoss_onnx.reference.respelled import published_name
from gptoss_onnx.reference.sources import hugging_face_ranges
from gptoss_onnx.runtime.weight_files import named_ranges
from gptoss_onnx.validation.comparison.findings import Findings
from gptoss_onnx.validation.comparison.fresh import FreshExport


@dataclass(frozen=True)
class Range:
    """`length` bytes from `offset` on in the file `location` of a package."""

    location: str
    offset: int
    length: int

    def __str__(self) -> str:
        """Return where it is, for people."""
        return f"{self.length} bytes at {self.offset} of {self.location}"


def external_ranges(graph: onnx.GraphProto) -> dict[str, Range]:
    """Return where the initializers lie that are not in the graph itself.

    Raises PackageError for what no export writes; `open_package` has refused that.
    """
    ranges = {}
    for tensor in graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            try:
                offset, length = int(entries["offset"]), int(entries["length"])
                ranges[tensor.name] = Range(entries["location"], offset, length)
            except (KeyError, ValueError) as error:
                raise PackageError(
                    f"external data of {tensor.name!r:.80} lack {error}; export again"
                ) from error
    return ranges


@dataclass(frozen=True)
class Sources:
    """What lies in the weight files of a fresh export, by where it lies.

    Attributes:
        tensors: all of it.
        stored: those that are the checkpoint's own.
    """

    tensors: Mapping[Range, PlannedTensor]
    stored: Mapping[Range, TensorInfo]

    @classmethod
    def of(cls, fresh: FreshExport) -> Self:
        """Return those of a fresh export."""
        placement = fresh.planned.placement
        locations = {} if placement is None else placement.locations
        stored = {
            Range(locations[info.file], info.offset, info.nbytes): info
            for info in fresh.checkpoint.viewed.values()
            if info.file in locations
        }
        tensors = {
            place: PlannedTensor(info.name, info.dtype, info.shape)
            for place, info in stored.items()
        }
        return cls(tensors | dict(_computed(fresh.planned)), stored)


def _computed(planned: Planned) -> Iterator[tuple[Range, PlannedTensor]]:
    for file in planned.files:
        for entry in file.conversions:
            for tensor in entry.tensors:
                yield Range(file.name, file.offsets[tensor.name], tensor.nbytes), tensor


def compare_ranges(fresh: FreshExport, findings: Findings) -> None:
    """Add every initializer that reads another tensor of its file than it should.

    Tensors are known by the names in the files' own headers, so that a checkpoint may have been
    split into other files since. What the bytes are is for `compare_weights` to say.
    """
    found = external_ranges(fresh.found.graph)
    expected = external_ranges(fresh.expected.graph)
    tensors = Sources.of(fresh).tensors
    names = _names(fresh, {place.location for place in found.values()})
    for initializer, place in expected.items():
        ours = found.get(initializer)
        if ours is None:
            continue  # a missing or an inner one is found with the graph
        tensor, wanted = names.get(ours), tensors[place].name
        if tensor is None or wanted not in _names_for(tensor):
            where = fresh.labels.reader(initializer)
            read = f"{tensor or 'no whole tensor'} ({ours})"
            findings.add(where, f"{initializer}: byte range", read, f"{wanted} ({place})")


def _names_for(stored: str) -> tuple[str, ...]:
    """Return what an export may call a tensor of this name, which a trainer gave it."""
    plain = plain_name(stored)
    return stored, plain, published_name(plain)


def _names(fresh: FreshExport, locations: set[str]) -> dict[Range, str]:
    """Return the name of each tensor in the package's weight files of these names."""
    names: dict[Range, str] = {}
    document, where = fresh.checkpoint.document, fresh.checkpoint.document_path
    for entry in fresh.package.manifest.weights.files:
        if entry.name in locations:
            path = fresh.package.weight_path(entry)
            ranges = named_ranges(path, safetensors_header(path))
            for name, place in hugging_face_ranges(ranges, document, where).items():
                names.setdefault(Range(entry.name, *place), name)
    return names
