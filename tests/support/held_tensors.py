"""Tensors in memory that computations read as those of an opened checkpoint."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from torch import Tensor

from gptoss_onnx.checkpoint.tensors import TensorInfo

T = TypeVar("T")


class HeldTensors:
    """The `Stored` of tensors by name."""

    def __init__(self, content: Mapping[str, Tensor]) -> None:
        self._content = content

    def load_tensor(self, info: TensorInfo) -> Tensor:
        return self._content[info.name]

    def read_tensor_rows(self, info: TensorInfo, first: int, end: int) -> Tensor:
        return self._content[info.name].reshape(-1, info.shape[-1])[first:end].clone()

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        return make()
