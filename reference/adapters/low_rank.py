"""Parameters to which an adapter adds a product of two small matrices (LoRA), some rows at a time.

Hu et al. 2021, arXiv 2106.09685, section 4.1: W + s · B·A. The product is float32, and so is the
sum; it is rounded once, to the type of the parameter. Where one product is added to bfloat16 or
MXFP4, `custom_ops/low_rank.py` does all of it in one pass.

Legend: E experts, r rank, I inputs and O outputs of a projection, R rows and C columns of a matrix
as it lies, n rows of a piece. (R, C) is (O, I), or (I, O) where the matrix lies transposed.
"""

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
from gptoss_onnx.custom_ops.low_rank import add_low_rank
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference.mxfp4_rows import Mxfp4Rows

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

    def adds_to(self, matrix: int, low: int) -> bool:
        """Whether it adds anything to row `low` of a matrix."""
        return self.expert in (None, matrix) and self.first <= low < self.first + self.rows

    def add_to(self, rows: Tensor, stored: Stored, matrix: int, low: int) -> None:
        """Add it, in place, to float32 (n, C): rows of a matrix from `low` on, all meant."""
        end = low + len(rows)
        rows.addmm_(*self.factors(stored, matrix, low, end), alpha=self.scale)
        if self.magnitude is not None:
            wanted = stored.load_tensor(self.magnitude)[low - self.first : end - self.first]
            rows *= (wanted.float() / torch.linalg.vector_norm(rows, dim=1)).unsqueeze(1)

    def factors(self, stored: Stored, matrix: int, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """Return (n, r) and (r, C), float32, whose product is rows `begin` to `end` − 1 of a
        matrix as it lies, all of which are meant.
        """
        left, right = self._factors(stored, 0 if self.expert is not None else matrix)
        return left[begin - self.first : end - self.first], right

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

    def adds_to(self, matrix: int, low: int) -> bool:
        """Whether it adds anything to row `low`: it does, to its one row."""
        return (matrix, low) == (0, 0)

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
        return any(term.touches(first, end, self._each) for term in self.added)

    def rows(self, stored: Stored, first: int, end: int) -> Tensor:
        """Return rows [first, end), (end − first, C), in the dtype.

        Raises CheckpointError where a sum passes the largest number of the dtype.
        """
        parts = []
        while first < end:
            matrix, low = divmod(first, self._each)
            stop = min(end, first + self._next_cut(low) - low)
            parts.append(self._part(stored, first, stop, matrix, low))
            first = stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def _each(self) -> int:
        """Rows of a matrix; 1 of a bias."""
        return element_count(self.base.shape[-2:-1])

    def _next_cut(self, low: int) -> int:
        """Return the first row of a matrix behind `low` to which other terms may be added."""
        terms = [term for term in self.added if isinstance(term, LowRank)]
        cuts = (cut for term in terms for cut in (term.first, term.first + term.rows))
        return min((cut for cut in cuts if cut > low), default=self._each)

    def _part(self, stored: Stored, first: int, end: int, matrix: int, low: int) -> Tensor:
        """Return rows to all of which the same terms are added; `low` is the first's place in its
        matrix.
        """
        terms = [term for term in self.added if term.adds_to(matrix, low)]
        if len(terms) == 1 and self.dtype == "BF16":
            term = terms[0]
            if isinstance(term, LowRank) and term.magnitude is None:
                numbers, scales = self._stored_rows(stored, first, end)
                factors = term.factors(stored, matrix, low, low + end - first)
                return add_low_rank(numbers, *factors, term.scale, scales=scales)
        sums = self.base.read_rows(stored, first, end).float()
        for term in terms:
            term.add_to(sums, stored, matrix, low)
        result = sums.to(TORCH_DTYPES[self.dtype])
        if self.dtype == "F16" and not bool(torch.isfinite(result).all()):
            raise CheckpointError(
                f"{self.base.name}: with the adapter it passes the largest float16, expected "
                "finite sums: the adapter is damaged, or of another base model"
            )
        return result

    def _stored_rows(self, stored: Stored, first: int, end: int) -> tuple[Tensor, Tensor | None]:
        """Return rows of the base: bfloat16, or MXFP4 blocks with their scales."""
        if isinstance(self.base.computed, Mxfp4Rows):
            return self.base.computed.stored_rows(stored, first, end)
        return self.base.read_rows(stored, first, end), None


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
