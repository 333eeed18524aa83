"""Parameters to which an adapter adds a product of two small matrices (LoRA), some rows at a time.

Hu et al. 2021, arXiv 2106.09685, section 4.1: W + s · B·A. The product is float32, and so is the
sum; it is rounded once, to the type of the parameter.

Legend: E experts, r rank, I inputs and O outputs of a projection, R rows and C columns of a matrix
as it lies, n rows of a piece. (R, C) is (O, I), or (I, O) where the matrix lies transposed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gptoss_onnx.checkpoint.tensors import (
    TORCH_DTYPES,
    Parameter,
    Stored,
    TensorInfo,
    element_count,
)
from gptoss_onnx.errors import CheckpointError

REPLACED = "weights that an adapter holds in full"
MERGED = "an adapter's products added in float32, sums rounded to {dtype}"


@dataclass(frozen=True)
class LowRank:
    """One product that is added to the matrices of a parameter, or to a part of one.

    Attributes:
        a: (r, I); of all experts together (E·r, I), one expert behind the other.
        b: (O, r); of all experts together (O, r·E), the expert fastest.
        scale: what the product is multiplied by.
        transposed: the matrix lies as (I, O).
        experts: how many experts `a` and `b` hold.
        expert: the only matrix that is meant; None for as many as `experts` says.
        first: the first row that is meant of a matrix; below it lie `rows` that are meant, which
            are all unless the parameter joins several projections.
        rows: how many.
        magnitude: (O), the lengths that the rows shall have afterwards (DoRA: Liu et al. 2024,
            arXiv 2402.09353, equation 5); None leaves them as they are.
    """

    a: TensorInfo
    b: TensorInfo
    scale: float
    transposed: bool
    experts: int
    expert: int | None
    first: int
    rows: int
    magnitude: TensorInfo | None = None

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """What it reads."""
        return (self.a, self.b) if self.magnitude is None else (self.a, self.b, self.magnitude)

    def touches(self, first: int, end: int, each: int) -> bool:
        """Whether it adds anything to rows `first` to `end` − 1 of matrices of `each` rows."""
        if self.expert is None:
            return True
        begin = self.expert * each + self.first
        return begin < end and first < begin + self.rows

    def add_to(self, rows: Tensor, stored: Stored, matrix: int, low: int) -> None:
        """Add it, in place, to float32 (n, C), the rows of a matrix from `low` on."""
        if self.expert not in (None, matrix):
            return
        begin, end = max(low, self.first), min(low + len(rows), self.first + self.rows)
        if begin >= end:
            return
        left, right = self._factors(stored, 0 if self.expert is not None else matrix)
        part = rows[begin - low : end - low]
        part.addmm_(left[begin - self.first : end - self.first], right, alpha=self.scale)
        if self.magnitude is not None:
            wanted = stored.load_tensor(self.magnitude)[begin - self.first : end - self.first]
            part *= (wanted.float() / torch.linalg.vector_norm(part, dim=1)).unsqueeze(1)

    def _factors(self, stored: Stored, index: int) -> tuple[Tensor, Tensor]:
        """Return (R, r) and (r, C), float32: their product is the matrix as it lies.

        They are kept, since many pieces of rows ask for them.
        """

        def read() -> tuple[Tensor, Tensor]:
            rank = self.a.shape[0] // self.experts
            a = stored.read_tensor_rows(self.a, index * rank, (index + 1) * rank)  # (r, I)
            experts = stored.load_tensor(self.b).unflatten(1, (rank, self.experts))
            b = experts[:, :, index]  # (O, r)
            left, right = (a.T, b.T) if self.transposed else (b, a)
            return left.float().contiguous(), right.float().contiguous()

        return stored.keep((self, index), read)


@dataclass(frozen=True)
class Product:
    """A product that the model computes beside a projection, instead of a sum of weights."""

    rank: int
    scale: float


@dataclass(frozen=True)
class BiasSum:
    """A bias (O) that is added to a parameter that is one, times `scale`."""

    bias: TensorInfo
    scale: float

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """What it reads."""
        return (self.bias,)

    def touches(self, first: int, end: int, each: int) -> bool:
        """Whether it adds anything: it does, to its one row."""
        return first < end

    def add_to(self, rows: Tensor, stored: Stored, matrix: int, low: int) -> None:
        """Add it, in place, to float32 (1, O)."""
        assert (matrix, low) == (0, 0)
        rows.add_(stored.load_tensor(self.bias).float(), alpha=self.scale)


@dataclass(frozen=True)
class Adapted:
    """The computation of a parameter from what it is without adapters, and what they add to it.

    Attributes:
        base: the parameter without adapters, or the tensor that an adapter has in its place.
        added: in the order of the adapters.
        dtype: of the result, in safetensors' spelling.
    """

    base: Parameter
    added: tuple[LowRank | BiasSum, ...]
    dtype: str

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """What is read beside the sources of the base, each once."""
        own = () if self.base.computed is None else self.base.computed.tensors
        return tuple(dict.fromkeys((*own, *(info for term in self.added for info in term.tensors))))

    @property
    def loss(self) -> str | None:
        """What is lost; the words are alike for all parameters of a type."""
        own = None if self.base.computed is None else self.base.computed.loss
        name = str(TORCH_DTYPES[self.dtype]).removeprefix("torch.")
        return "; ".join(filter(None, (own, MERGED.format(dtype=name) if self.added else None)))

    def changes(self, first: int, end: int) -> bool:
        """Whether anything is added to rows `first` to `end` − 1."""
        each = element_count(self.base.shape[-2:-1])
        return any(term.touches(first, end, each) for term in self.added)

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end), (end − first, C), in the dtype.

        Raises CheckpointError where a sum passes the largest number of the dtype.
        """
        sums = self.base.read_rows(stored, first, end).float()
        for matrix, low, part in self._by_matrix(sums, first):
            for term in self.added:
                term.add_to(part, stored, matrix, low)
        result = sums.to(TORCH_DTYPES[self.dtype])
        if self.dtype == "F16" and not bool(torch.isfinite(result).all()):
            raise CheckpointError(
                f"{self.base.name}: with the adapter it passes the largest float16, expected "
                "finite sums: the adapter is damaged, or of another base model"
            )
        return result

    def _by_matrix(self, rows: Tensor, first: int) -> Iterator[tuple[int, int, Tensor]]:
        """Yield which matrix, from which of its rows on, and these rows of it."""
        each = element_count(self.base.shape[-2:-1])  # 1 for a bias
        at = 0
        while at < len(rows):
            matrix, low = divmod(first + at, each)
            count = min(each - low, len(rows) - at)
            yield matrix, low, rows[at : at + count]
            at += count


@dataclass(frozen=True)
class Replaced:
    """The computation of a parameter in whose place an adapter has a whole tensor.

    Attributes:
        tensor: the adapter's, of the parameter's shape.
        dtype: of the result, in safetensors' spelling.
    """

    tensor: TensorInfo
    dtype: str
    loss = REPLACED

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """What it reads; a package has nothing of the checkpoint's own tensor."""
        return (self.tensor,)

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end), (end − first, C), in the dtype."""
        found = stored.read_tensor_rows(self.tensor, first, end)
        return found.to(TORCH_DTYPES[self.dtype])
