"""`compare_weights`: is every weight of a package the checkpoint's, or what is to be made of it?"""

import math
from collections.abc import Sequence

from torch import Tensor

from gptoss_onnx.checkpoint.tensors import TensorInfo, element_count
from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.exporter.conversion import Conversion
from gptoss_onnx.package import Package
from gptoss_onnx.progress import Progress
from gptoss_onnx.reference import Checkpoint
from gptoss_onnx.validation.comparison.contents import Reading, compare_contents
from gptoss_onnx.validation.comparison.findings import Findings
from gptoss_onnx.validation.comparison.fresh import FreshExport, NotComparableError
from gptoss_onnx.validation.comparison.graph import without_export
from gptoss_onnx.validation.comparison.ranges import Range, Sources, external_ranges
from gptoss_onnx.validation.report.document import Comparison

NAME = "weights"
WHERE = "manifest.json"
ERROR_DIGITS = 1e-3  # relative, of what the manifest records
DESCRIPTION = "every tensor in the package's weight files against the checkpoint's"


def compare_weights(package: Package, checkpoint: Checkpoint, progress: Progress) -> Comparison:
    """Compare every weight that a package's graph reads with what a fresh export would give it.

    Of a file that is the reference's own, under whatever name, nothing is read: where in it the
    graph reads is enough. All other weights are read from both, and those that an export computes
    are computed again. Memory is bounded by some pieces of a few MB.

    Args:
        package: whose files were checked, as by `runtime.open_package`.
        checkpoint: what the package was made from.
        progress: hears how many bytes are compared.

    Raises:
        PackageError: a file of the package cannot be read.
        CheckpointError: a file of the checkpoint has changed, or a weight cannot be converted.
    """
    try:
        return weights_comparison(FreshExport.make(package, checkpoint, progress), progress)
    except NotComparableError as error:
        return without_export(NAME, DESCRIPTION, error)


def weights_comparison(fresh: FreshExport, progress: Progress) -> Comparison:
    """Compare as `compare_weights` does, where the fresh export has been made."""
    findings = Findings()
    package, sources = fresh.package, Sources.of(fresh)
    stored: list[Reading] = []
    computed: dict[str, list[Reading]] = {file.name: [] for file in fresh.planned.files}
    shared = 0
    for place, reading in _readings(fresh, sources, findings).items():
        info = sources.stored.get(place[0])
        if info is None:
            computed[place[0].location].append(reading)
        elif reading.place.offset == info.offset and _is_same(package, reading, info):
            shared += 1
        else:
            stored.append(reading)
    jobs: list[tuple[list[Reading], Sequence[Conversion]]] = [
        (computed[file.name], file.conversions) for file in fresh.planned.files
    ]
    jobs.append((stored, _as_stored(fresh.checkpoint, stored)))
    total = sum(t.nbytes for _, made in jobs for entry in made for t in entry.tensors)
    progress.begin("comparing the weights", total)
    for readings, conversions in jobs:
        for done in compare_contents(package, readings, conversions):
            progress.advance(done)
    for readings, _ in jobs:
        for reading in readings:
            if reading.difference is not None:
                findings.add(fresh.labels.reader(reading.initializers[0]), *reading.difference)
    _compare_errors(fresh, findings)
    notes = [*fresh.notes]
    if shared:
        notes.append(
            f"{shared} tensors lie in the reference's own files: where they lie was compared"
        )
    return findings.comparison(NAME, DESCRIPTION, notes)


def _compare_errors(fresh: FreshExport, findings: Findings) -> None:
    """Add every error of experts in MXFP4 that is recorded otherwise than it was found again."""
    entries = fresh.package.manifest.rounded
    recorded = {error.name: error.relative_rms for entry in entries for error in entry.errors}
    measured = {error.name: error.relative_rms for error in fresh.planned.measured}
    for name in dict.fromkeys((*measured, *recorded)):
        found, expected = recorded.get(name), measured.get(name)
        same = found is not None and expected is not None and _are_same(found, expected)
        if not same:
            findings.add(WHERE, f"error of {name}", found, expected)


def _are_same(found: float, expected: float) -> bool:
    """Say whether both errors are 0, or both are not and nearly equal: machines may differ in the
    last digits.
    """
    return (found == 0.0) == (expected == 0.0) and math.isclose(
        found, expected, rel_tol=ERROR_DIGITS
    )


def _readings(
    fresh: FreshExport, sources: Sources, findings: Findings
) -> dict[tuple[Range, Range], Reading]:
    """Return what the package reads where it should read a tensor of the fresh export.

    Each has the place that the fresh export gives the tensor, and the one where the package reads
    it. Adds to `findings` what reads none.
    """
    found = external_ranges(fresh.found.graph)
    expected = external_ranges(fresh.expected.graph)
    listed = {entry.name for entry in fresh.package.manifest.weights.files}
    readers: dict[tuple[Range, Range], list[str]] = {}
    for initializer, place in expected.items():
        ours = found.get(initializer)
        if ours is not None and ours.length == place.length and ours.location in listed:
            readers.setdefault((place, ours), []).append(initializer)
        else:
            where = fresh.labels.reader(initializer)
            findings.add(where, initializer, ours or "no weights in a file", place)
    return {
        key: Reading(tuple(names), sources.tensors[key[0]], key[1])
        for key, names in readers.items()
    }


def _as_stored(checkpoint: Checkpoint, readings: Sequence[Reading]) -> list[Conversion]:
    """Return conversions that give the checkpoint's tensors of these readings as they are."""
    tensors = {reading.tensor.name: reading.tensor for reading in readings}
    return [_unchanged(checkpoint, tensor) for tensor in tensors.values() if tensor.nbytes]


def _unchanged(checkpoint: Checkpoint, tensor: PlannedTensor) -> Conversion:
    """Return a conversion that reads a tensor's bytes; its rows are elements."""
    info = checkpoint.viewed[tensor.name]

    def convert(first: int, end: int) -> list[Tensor]:
        return [checkpoint.read_bytes(info, first * tensor.itemsize, end * tensor.itemsize)]

    return Conversion((tensor,), element_count(tensor.shape), 1, convert)


def _is_same(package: Package, reading: Reading, info: TensorInfo) -> bool:
    """Say whether a weight file of a package is the file that a tensor of the checkpoint is in."""
    entries = package.manifest.weights.files
    entry = next(entry for entry in entries if entry.name == reading.place.location)
    return package.weight_path(entry).samefile(info.file)
