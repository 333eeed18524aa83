"""What the reference says: each sequence is run once, and all cases that need its logits share
them.

Legend: T positions, V vocabulary.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.greedy import greedy
from gptoss_onnx.validation.judging.error_model import TYPICAL, ErrorModel, Products
from gptoss_onnx.validation.judging.metrics import Difference, Logits, compare
from gptoss_onnx.validation.judging.near_ties import NearTie, disturbed, watched
from gptoss_onnx.validation.judging.settle import RUNS, Run, Source, in_order

SMALL = 50_000_000  # parameters of a model that is run again and again
TRIES = 20
FEW_RUNS = 8  # that settle the near-ties of a case of a large model, minutes each
SAMPLES = 4  # runs that show what flipped experts cost
TURNED_BYTES = 1_000_000_000  # of logits kept of runs with ties turned


@dataclass(frozen=True)
class Scored:
    """Logits of the reference, float32 (T, V), and where each comes from.

    Row t is position `positions[t]` of the sequence that `sources[owners[t]]` runs. So many `runs`
    more are affordable, to settle near-ties.
    """

    logits: Logits
    positions: NDArray[np.int64]
    owners: NDArray[np.int64]
    sources: tuple[Source, ...]
    runs: int = RUNS

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Boolean (T): true before the first near-tie of the row's sequence."""
        firsts = [
            min((tie.position for tie in source(()).ties), default=np.iinfo(np.int64).max)
            for source in self.sources
        ]
        return np.asarray(self.positions < np.array(firsts)[self.owners])

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[Any]) -> "Scored":
        """Return some of the rows."""
        return replace(
            self,
            logits=self.logits[rows],
            positions=self.positions[rows],
            owners=self.owners[rows],
        )

    @classmethod
    def join(cls, parts: Sequence["Scored"]) -> Self:
        """Return all rows of all parts, one after the other. What computed one part may have
        decided a tie otherwise than what computed another, even of the same sequence.
        """
        begins = np.cumsum([0, *(len(part.sources) for part in parts)])
        owners = [part.owners + begin for part, begin in zip(parts, begins, strict=False)]
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.positions for part in parts]),
            np.concatenate(owners),
            tuple(source for part in parts for source in part.sources),
            min(part.runs for part in parts),
        )


class Expected:
    """Logits and continuations of one reference model in float32, remembered by token sequence.

    Args of the constructor:
        model: the reference.
        seed: of the random tokens.
        near: what counts as a near-tie of routers, in router logits, whatever the error model says.
        products: how what is judged multiplies; see `ErrorModel`.
    """

    def __init__(
        self, model: Decoder, seed: int, near: float = 0.0, products: Products = "float32"
    ) -> None:
        self.seed, self.near = seed, near
        self.config = model.config
        self.errors = ErrorModel.of(model.config, model.config.longest, products=products)
        self._model = model
        self._is_small = sum(map(torch.numel, model.parameters())) <= SMALL
        self._settle_runs = RUNS if self._is_small else FEW_RUNS
        self._generator = torch.Generator()
        self.restart()
        self._runs: dict[Hashable, Run] = {}
        self._turned: OrderedDict[tuple[Hashable, frozenset[NearTie]], Run] = OrderedDict()

    @property
    def model(self) -> Decoder:
        """The reference itself."""
        return self._model

    def restart(self) -> None:
        """Draw the same tokens again from here on, so that what was computed serves once more."""
        self._generator.manual_seed(self.seed)

    def draw(self, count: int) -> list[int]:
        """Return `count` random token ids; every call draws new ones from the seeded sequence."""
        vocabulary = self._model.config.vocab_size
        return torch.randint(vocabulary, (count,), generator=self._generator).tolist()

    def tokens(self, count: int) -> list[int]:
        """Return `count` random token ids at which no router of a small model chooses by a hair.

        From the first such position on they are drawn again, which spares further runs. A large
        model takes too long for that, and some models tie at every token; `judge` settles what is
        left.
        """
        token_ids = self.draw(count)
        for _ in range(TRIES if self._is_small else 0):
            decided = int(self.score(token_ids).decided.sum())
            if decided == count:
                break
            del self._runs[tuple(token_ids)]
            token_ids[decided:] = self.draw(count - decided)
        return token_ids

    def score(self, token_ids: Sequence[int]) -> Scored:
        """Return the logits of every position."""
        key = tuple(token_ids)
        return self._scored(key, lambda: self._model.score(key))

    def scale(self, token_ids: Sequence[int]) -> float:
        """Return the root mean square of a sequence's logits."""
        return float(np.sqrt(np.square(self.score(token_ids).logits, dtype=np.float64).mean()))

    def flipped(self, token_ids: Sequence[int], errors: ErrorModel) -> Difference | None:
        """Return what it costs that routers choose otherwise because their logits are off by what
        is typical of an error model: the mean of `SAMPLES` runs with such noise. None for a large
        model, which takes too long for that.
        """
        if not self._is_small:
            return None
        own = self.score(token_ids).logits
        noise = [TYPICAL * error for error in errors.routers]
        found = []
        for sample in range(SAMPLES):
            with disturbed(self._model, noise, self.seed + sample):
                found.append(self._model.score(token_ids).float().numpy())
        return compare(np.concatenate(found), np.concatenate([own] * SAMPLES))

    def greedy(self, token_ids: Sequence[int], count: int) -> list[int]:
        """Return the reference's greedy continuation."""
        return greedy(self._model, [token_ids], count)[0]

    def _scored(self, name: Hashable, compute: Callable[[], Tensor]) -> Scored:
        """Return all logits (T, V) of a call of the model, which is made once for each name."""
        source = partial(self._run, name, compute)
        logits = source(()).logits
        positions = np.arange(len(logits))
        return Scored(logits, positions, np.zeros_like(positions), (source,), self._settle_runs)

    def _run(
        self, name: Hashable, compute: Callable[[], Tensor], turned: tuple[NearTie, ...]
    ) -> Run:
        """Make a call with some ties turned; the last such runs are kept, as memory allows."""
        if not turned:
            if name not in self._runs:
                self._runs[name] = self._watch(compute, ())
            return self._runs[name]
        key = (name, frozenset(turned))
        if key not in self._turned:
            self._turned[key] = self._watch(compute, turned)
            while len(self._turned) > 1 and self._turned_bytes() > TURNED_BYTES:
                self._turned.popitem(last=False)
        return self._turned[key]

    def _turned_bytes(self) -> int:
        return sum(run.logits.nbytes for run in self._turned.values())

    def _watch(self, compute: Callable[[], Tensor], turned: tuple[NearTie, ...]) -> Run:
        with watched(self._model, self.errors.router_bounds(), self.near, turned) as ties:
            logits = compute().float().numpy()
        return Run(logits, in_order(ties))
