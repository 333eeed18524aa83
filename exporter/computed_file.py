"""ComputedFile: a safetensors file of a package that `export` computes from the checkpoint."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gptoss_onnx.checkpoint.writer import PlannedTensor
from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter.conversion import Conversion, convert_all
from gptoss_onnx.exporter.external_data import require_room
from gptoss_onnx.progress import Progress


@dataclass(frozen=True)
class ComputedFile:
    """A file that is planned: where everything in it lies, and how it is computed.

    Attributes:
        name: of the file, in the package.
        what: the weights, for the message that says how much room they need.
        doing: what is told while they are computed.
        head: what the file begins with.
        offsets: where each tensor begins, in bytes, by the tensor's name.
        conversions: which compute the tensors.
    """

    name: str
    what: str
    doing: str
    head: bytes
    offsets: Mapping[str, int]
    conversions: tuple[Conversion, ...]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for entry in self.conversions for tensor in entry.tensors)

    def write(self, folder: Path, progress: Progress) -> None:
        """Write the new file into `folder`; `progress` hears of the bytes.

        Raises:
            PackageError: there is a file of that name, or no room for one.
            CheckpointError: a file of the checkpoint has changed, or a conversion refuses a weight.
        """
        require_room(folder, len(self.head) + self.size, f"{self.what} need")
        progress.begin(self.doing, self.size)
        try:
            # a link of that name leads into the checkpoint
            file = (folder / self.name).open("xb", buffering=0)
        except FileExistsError:
            raise PackageError(
                f"{self.name}: the checkpoint has a file of this name; rename it and export again"
            ) from None
        with file:
            file.write(self.head)
            file.truncate(len(self.head) + self.size)
            # the system lets one thread write to a file; others would wait without sleeping
            descriptor, writing = file.fileno(), threading.Lock()

            def visit(tensor: PlannedTensor, at: int, content: memoryview) -> None:
                with writing:
                    _write(descriptor, content, self.offsets[tensor.name] + at)

            for written in convert_all(self.conversions, visit):
                progress.advance(written)


def _write(file: int, content: memoryview, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
