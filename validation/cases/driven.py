"""What the cases ask of whatever runs a package: our sessions do it, and adapters of other people's
exports.

B batch, S columns of a call, V vocabulary, T tokens of one sequence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptoss_onnx.runtime.sampling import Sampling


class NotAvailableError(Exception):
    """A package cannot do what a case asks of it, for the reason in the message; this is no
    fault.
    """


class DrivenCache(Protocol):
    """What some rows hold; a context manager that frees it."""

    @property
    def batch(self) -> int:
        """B."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, (B)."""

    def rewind(self, lengths: ArrayLike) -> None:
        """Forget each row's tokens from position `lengths` on."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Driven(Protocol):
    """Something that runs tokens; `gptoss_onnx.runtime.Session` says what each method does.

    A method raises NotAvailableError where the package cannot do that, and any other error where it
    should and does not. Only caches of the same session are passed to `forward`.
    """

    @property
    def vocab(self) -> int:
        """V."""

    def new_cache(
        self, batch: int, capacity: int, reserve: int = 0, *, chunk: int = ...
    ) -> DrivenCache:
        """Return an empty cache for `batch` rows of up to `capacity` tokens."""

    def forward(
        self,
        input_ids: ArrayLike,
        cache: Any,
        new_lengths: ArrayLike | None = None,
        logit_positions: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Run new tokens, right-padded (B, S), and return logits, float32 (B, kept, V)."""

    def score(
        self,
        token_ids: Sequence[int] | NDArray[Any],
        chunk: int | None = None,
        positions: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Return the logits of all positions of a sequence, or of some, float32 (kept, V), `chunk`
        tokens a call.
        """

    def generate(
        self,
        token_ids: Sequence[int],
        sampling: Sampling | None = None,
        *,
        max_new_tokens: int = ...,
    ) -> Iterable[int]:
        """Yield the tokens that continue a sequence."""


@dataclass(frozen=True)
class Capabilities:
    """What a package cannot do, in the words of `gptoss_onnx.offered`, and why."""

    missing: Mapping[str, str] = field(default_factory=dict)

    def why_not(self, need: str | None) -> str | None:
        """Return why the package cannot do what a case needs, None where it can."""
        return None if need is None else self.missing.get(need)
