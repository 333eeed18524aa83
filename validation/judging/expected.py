"""What the reference says: each sequence is run once, and all cases that need its logits share
them.

Legend: T positions, V vocabulary.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.greedy import greedy
from gptoss_onnx.reference.layers import KeyValue
from gptoss_onnx.reference.threads import is_small, threads_for
from gptoss_onnx.validation.judging.error_model import TYPICAL, ErrorModel, Products
from gptoss_onnx.validation.judging.logits_as_asked import LogitsAsAsked
from gptoss_onnx.validation.judging.metrics import Difference, Logits, compare
from gptoss_onnx.validation.judging.near_ties import NearTie, disturbed, watched
from gptoss_onnx.validation.judging.scored import Scored
from gptoss_onnx.validation.judging.settle import RUNS, Run, in_order

TRIES = 20
FEW_RUNS = 8  # that settle the near-ties of a case of a large model, minutes each
SAMPLES = 4  # runs that show what flipped experts cost
SCALE_POSITIONS = 32  # of a large model, whose logits give their size
TURNED_BYTES = 1_000_000_000  # of logits kept of runs with ties turned


@dataclass(frozen=True)
class Past:
    """What caches hold before a sequence begins: so many tokens, under a name that tells one draw
    from another, and a function that makes the caches, a pair for each layer, with room for so many
    tokens more (see `Decoder.forward`).
    """

    length: int
    name: str
    caches: Callable[[int], list[KeyValue]]


# A sequence, and the length and the name of what caches hold before it.
Key = tuple[tuple[int, ...], tuple[int, str]]
NOTHING = (0, "")


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
        self._is_small = is_small(model)
        self._settle_runs = RUNS if self._is_small else FEW_RUNS
        self._generator = torch.Generator()
        self.restart()
        self._runs: dict[Key, Run] = {}
        self._turned: OrderedDict[tuple[Key, frozenset[NearTie]], Run] = OrderedDict()
        self._named: dict[tuple[str, int], list[int]] = {}

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
        return self._settled(self.draw, count, None)

    def named(self, name: str, count: int, past: Past | None = None) -> list[int]:
        """Return `count` token ids like those of `tokens`, the same ones for the same name; they
        come after `past`, if there is one.
        """
        if (name, count) not in self._named:
            generator, vocabulary = self.generator(name), self.config.vocab_size

            def draw(most: int) -> list[int]:
                return [int(token) for token in generator.integers(vocabulary, size=most)]

            self._named[name, count] = self._settled(draw, count, past)
        return self._named[name, count]

    def generator(self, name: str) -> np.random.Generator:
        """Return a generator that depends on the seed and a name alone: it draws the same whichever
        cases ran before.
        """
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    @property
    def tries(self) -> int:
        """How often tokens are drawn again because a router chose by a hair."""
        return TRIES if self._is_small else 0

    def _settled(
        self, draw: Callable[[int], list[int]], count: int, past: Past | None
    ) -> list[int]:
        token_ids = draw(count)
        for _ in range(self.tries):
            decided = int(self.score(token_ids, past).decided.sum())
            if decided == count:
                break
            del self._runs[_key(token_ids, past)]
            token_ids[decided:] = draw(count - decided)
        return token_ids

    def score(self, token_ids: Sequence[int], past: Past | None = None) -> Scored:
        """Return the logits of every position of a sequence, which comes after `past`, if there is
        one.
        """
        run = partial(self._run, tuple(token_ids), past=past)
        positions = np.arange(len(token_ids))
        owners = np.zeros_like(positions)
        return Scored(positions, owners, (run,), self._settle_runs)

    def caches(self, token_ids: Sequence[int]) -> list[KeyValue]:
        """Return keys and values (1, K, T, D) of a sequence, a pair for each layer."""
        return self._forward(token_ids, None)[1]

    def scale(self, token_ids: Sequence[int]) -> float:
        """Return the root mean square of a sequence's logits; a large model's at some positions."""
        scored = self.score(token_ids)
        if not self._is_small:
            scored = scored[:: max(1, len(token_ids) // SCALE_POSITIONS)]
        return float(np.sqrt(np.square(scored.logits, dtype=np.float64).mean()))

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
            noisy = disturbed(self._model, noise, self.seed + sample)
            with threads_for(self._model), noisy:
                found.append(self._model.score(token_ids).float().numpy())
        return compare(np.concatenate(found), np.concatenate([own] * SAMPLES))

    def greedy(self, token_ids: Sequence[int], count: int) -> list[int]:
        """Return the reference's greedy continuation."""
        with threads_for(self._model):
            return greedy(self._model, [token_ids], count)[0]

    def _run(
        self, token_ids: tuple[int, ...], turned: tuple[NearTie, ...], past: Past | None
    ) -> Run:
        """Run a sequence with some ties turned; the last such runs are kept, as memory allows."""
        key = _key(token_ids, past)
        if not turned:
            if key not in self._runs:
                self._runs[key] = self._compute(token_ids, (), past)
            return self._runs[key]
        name = (key, frozenset(turned))
        if name not in self._turned:
            self._turned[name] = self._compute(token_ids, turned, past)
            while len(self._turned) > 1 and self._turned_bytes() > TURNED_BYTES:
                self._turned.popitem(last=False)
        return self._turned[name]

    def _turned_bytes(self) -> int:
        return sum(run.logits.nbytes for run in self._turned.values())

    def _compute(
        self, token_ids: tuple[int, ...], turned: tuple[NearTie, ...], past: Past | None
    ) -> Run:
        with watched(self._model, self.errors.router_bounds(), self.near, turned) as ties:
            hidden = self._forward(token_ids, past)[0]
        if self._is_small:
            return Run(self._unembedded(hidden), in_order(ties))
        return Run(LogitsAsAsked(hidden, self._unembedded), in_order(ties))

    @torch.inference_mode()
    def _unembedded(self, hidden: torch.Tensor) -> Logits:
        with threads_for(self._model):
            return self._model.unembed(hidden).float().numpy()

    @torch.inference_mode()
    def _forward(
        self, token_ids: Sequence[int], past: Past | None
    ) -> tuple[torch.Tensor, list[KeyValue]]:
        """Return what the last layer gives for a sequence, (T, hidden), and its keys and values,
        computed in one pass.
        """
        count = len(token_ids)
        caches = past.caches(count) if past else self._model.new_cache(1, count)
        lengths = torch.tensor([past.length if past else 0])
        with threads_for(self._model):
            return self._model.hidden_states(
                torch.tensor([list(token_ids)]), lengths, torch.tensor([count]), caches
            )


def _key(token_ids: Sequence[int], past: Past | None) -> Key:
    """Return what a run is remembered by; not `past` itself, which may hold large caches."""
    return tuple(token_ids), (past.length, past.name) if past else NOTHING
