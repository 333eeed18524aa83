"""Read a weight file that an export computed; its maker may be a stranger."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gptoss_onnx.errors import PackageError
from gptoss_onnx.json_text import printable


class StoredFile:
    """The tensors of a safetensors file, mapped from it, each checked when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._tensors: Mapping[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            reason = printable(" ".join(str(error).split()))[:200]
            raise PackageError(
                f"{path}: cannot be read ({reason}); export the package again"
            ) from error

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors."""
        return tuple(self._tensors)

    def mapped(self, name: str) -> Tensor:
        """Return a tensor of whatever dtype and shape; raises PackageError if there is none."""
        found = self._tensors.get(name)
        if found is None:
            raise self.error(f"found no tensor {name}")
        return found

    def tensor(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor; raises PackageError if the file has no such tensor."""
        found = self.mapped(name)
        if found.dtype != dtype or tuple(found.shape) != shape:
            raise self.error(
                f"{name}: found {found.dtype} {tuple(found.shape)}, expected {dtype} {shape}"
            )
        return found

    def error(self, problem: str) -> PackageError:
        """Return the error that says what is wrong with this file."""
        return PackageError(f"{self._path}: {printable(problem)[:300]}; export the package again")
