"""Contents: the bytes of a package's weights beside those that should be there, piece by piece."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter.conversion import Conversion, convert_all
from gptoss_onnx.files import open_regular
from gptoss_onnx.package import Package
from gptoss_onnx.validation.comparison.ranges import Range
from gptoss_onnx.validation.comparison.tensors import stored_element


@dataclass
class Reading:
    """A tensor that should lie in a package, where initializers of its graph read it.

    Attributes:
        initializers: which read it, by name.
        tensor: what should lie there.
        place: where it is read.
        differing: how many of its elements differ from what they should be.
        first: byte of the first of them in the tensor, with the elements found and expected.
    """

    initializers: tuple[str, ...]
    tensor: PlannedTensor
    place: Range
    differing: int = 0
    first: tuple[int, bytes, bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def compare(self, at: int, found: bytes, expected: memoryview) -> None:
        """Compare the piece that begins at byte `at`; several threads may."""
        ours, theirs = np.frombuffer(found, np.uint8), np.frombuffer(expected, np.uint8)
        if np.array_equal(ours, theirs):
            return
        width = self.tensor.itemsize
        elements = (ours != theirs).reshape(-1, width).any(axis=1)
        begin = int(elements.argmax()) * width
        texts = (ours[begin : begin + width].tobytes(), theirs[begin : begin + width].tobytes())
        with self._lock:
            self.differing += int(np.count_nonzero(elements))
            if self.first is None or at + begin < self.first[0]:
                self.first = (at + begin, *texts)

    @property
    def difference(self) -> tuple[str, str, str] | None:
        """What differs first, what was found there and what was expected; None if nothing does."""
        if self.first is None:
            return None
        tensor, (begin, *contents) = self.tensor, self.first
        index = [int(i) for i in np.unravel_index(begin // tensor.itemsize, tensor.shape)]
        is_matrix = len(index) == 2
        element = f"row {index[0]}, column {index[1]}" if is_matrix else f"element {index}"
        more = f", and {self.differing - 1} elements more" if self.differing > 1 else ""
        found, expected = (stored_element(tensor.dtype, text, tensor.name) for text in contents)
        return f"{element} of {tensor.name}{more}", found, expected


def compare_contents(
    package: Package, readings: Sequence[Reading], conversions: Sequence[Conversion]
) -> Iterator[int]:
    """Compute all tensors of `conversions`, and compare each with what `readings` read for it.

    Memory is bounded by a piece for each thread. Yields how many more bytes are done.

    Raises:
        PackageError: a weight file of the package cannot be read, or has become shorter.
        CheckpointError: as conversions do.
    """
    wanted: dict[str, list[Reading]] = {}
    for reading in readings:
        wanted.setdefault(reading.tensor.name, []).append(reading)
    with ExitStack() as stack:
        files = _open(package, {reading.place.location for reading in readings}, stack)

        def visit(tensor: PlannedTensor, at: int, content: memoryview) -> None:
            for reading in wanted.get(tensor.name, ()):
                place = reading.place
                found = _read(files, place, at, content.nbytes)
                reading.compare(at, found, content)

        yield from convert_all(conversions, visit)


def _open(package: Package, locations: set[str], stack: ExitStack) -> Mapping[str, int]:
    """Open the package's weight files of these names; returns their descriptors."""
    files = {}
    for entry in package.manifest.weights.files:
        if entry.name in locations:
            path = package.weight_path(entry)
            file = stack.enter_context(open_regular(path, PackageError))
            files[entry.name] = file.fileno()
    return files


def _read(files: Mapping[str, int], place: Range, at: int, count: int) -> bytes:
    found = os.pread(files[place.location], count, place.offset + at)
    if len(found) < count:
        raise PackageError(
            f"{place.location}: found {len(found)} bytes at {place.offset + at}, expected {count}: "
            "the file has become shorter; export the package again"
        )
    return found
