"""Where a router chooses by a hair: another order of the same float32 sums may choose otherwise.

A token that is sent to another expert has other logits, and so has every later token that attends
to it. Neither choice is wrong. So near-ties are recorded while the reference runs, and it can run
again with some of them decided otherwise. Legend: T positions, E experts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice
from typing import Any

import torch
from torch import Tensor

from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.experts_int4 import MixtureOfExpertsInt4
from gptoss_onnx.reference.layers import MixtureOfExperts

MOST_EXPERTS = 8  # of one tie on either side; those next to the margin
MOST_CHOICES = 16  # other choices of one tie: those that exchange the fewest experts


@dataclass(frozen=True)
class NearTie:
    """A choice of a router that rounding may turn.

    At `position` of a sequence, in `layer`, the last expert that is chosen is `margin` before the
    first that is not, in router logits. Of the experts within the error bound, the reference takes
    `chosen` and leaves `others`; what is judged takes `taken`, as many of both.
    """

    position: int
    layer: int
    margin: float
    chosen: tuple[int, ...]
    others: tuple[int, ...]
    taken: tuple[int, ...]

    @property
    def turned(self) -> bool:
        """True if the choice is not the reference's own."""
        return self.taken != self.chosen

    @property
    def left(self) -> tuple[int, ...]:
        """The experts of the tie that are not taken."""
        return tuple(sorted({*self.chosen, *self.others} - {*self.taken}))

    def choices(self) -> Iterator["NearTie"]:
        """Yield the tie with each other choice, those that exchange the fewest experts first."""
        most = min(len(self.chosen), len(self.others))
        every = (
            NearTie(
                self.position,
                self.layer,
                self.margin,
                self.chosen,
                self.others,
                tuple(sorted({*self.chosen} - {*out} | {*into})),
            )
            for count in range(1, most + 1)
            for out in combinations(self.chosen, count)
            for into in combinations(self.others, count)
        )
        return islice(every, MOST_CHOICES)

    @property
    def decided(self) -> str:
        """Say in words which way the choice went."""
        if not self.turned:
            return f"{_names(self.chosen)}, not {_names(self.others)}, as the reference"
        taken = sorted({*self.taken} - {*self.chosen})
        left = sorted({*self.chosen} - {*self.taken})
        return f"{_names(taken)}; the reference takes {_names(left)}"

    def __str__(self) -> str:
        return (
            f"position {self.position}, layer {self.layer}: it takes {self.decided}, "
            f"{self.margin:.1e} apart in router logits"
        )


@contextmanager
def watched(
    model: Decoder, bounds: Sequence[float], near: float = 0.0, turned: Sequence[NearTie] = ()
) -> Iterator[list[NearTie]]:
    """Record the near-ties of a forward pass of one sequence inside the block, and turn some.

    Args:
        model: the reference, whose routers get hooks.
        bounds: how far rounding may move a router's logits, as a share of their root mean square,
            a number a layer.
        near: what counts as a tie whatever the bounds say, in router logits.
        turned: choices to force; their `left` experts get a logit just below the least `taken`.

    Yields a list that receives the ties, in order of layer, then position; the forced ones are not
    among them.
    """
    found: list[NearTie] = []

    def watcher(layer: int, top_k: int) -> Any:
        forced = [tie for tie in turned if tie.layer == layer]

        def watch(_: Any, __: Any, logits: Tensor) -> Tensor | None:
            width = max(near, bounds[layer] * float(logits.double().square().mean().sqrt()))
            places = {tie.position for tie in forced}
            found.extend(
                tie for tie in _ties(logits, top_k, layer, width) if tie.position not in places
            )
            return _force(logits, forced) if forced else None

        return watch

    hooks = [
        router.register_forward_hook(watcher(layer, top_k))
        for layer, router, top_k in _routers(model)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def disturbed(model: Decoder, errors: Sequence[float], seed: int) -> Iterator[None]:
    """Add normal noise to router logits inside the block, `errors` of their root mean square, a
    number a layer: as rounding moves them, and a lossy setting by much more.
    """
    generator = torch.Generator().manual_seed(seed)

    def disturb(_: Any, __: Any, logits: Tensor, error: float) -> Tensor:
        noise = torch.randn(logits.shape, generator=generator).to(logits)
        return logits + error * logits.square().mean().sqrt() * noise

    hooks = [
        router.register_forward_hook(partial(disturb, error=errors[layer]))
        for layer, router, _ in _routers(model)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _routers(model: Decoder) -> Iterator[tuple[int, torch.nn.Module, int]]:
    """Yield each router with its layer and how many experts it chooses."""
    for layer, block in enumerate(model.model.layers):
        if isinstance(block.mlp, (MixtureOfExperts, MixtureOfExpertsInt4)):
            yield layer, block.mlp.router, block.mlp.attributes.top_k


def _ties(logits: Tensor, top_k: int, layer: int, width: float) -> Iterator[NearTie]:
    """Yield the ties of router logits (T, E) whose margin is at most `width`."""
    if top_k >= logits.shape[-1]:
        return
    values, experts = torch.sort(logits, dim=-1, descending=True, stable=True)  # as `route` does
    margins = (values[:, top_k - 1] - values[:, top_k]).double()  # (T)
    for position in (margins <= width).nonzero().flatten().tolist():
        row, order = values[position].double(), experts[position].tolist()
        last, first = float(row[top_k - 1]), float(row[top_k])
        chosen = [order[place] for place in range(top_k) if float(row[place]) - first <= width]
        others = [
            order[place] for place in range(top_k, len(order)) if last - float(row[place]) <= width
        ]
        mine = tuple(sorted(chosen[-MOST_EXPERTS:]))
        theirs = tuple(sorted(others[:MOST_EXPERTS]))
        yield NearTie(position, layer, float(margins[position]), mine, theirs, mine)


def _force(logits: Tensor, forced: Sequence[NearTie]) -> Tensor:
    """Return router logits (T, E) that make the choices of `forced`, and are otherwise the same.

    Logits of experts that are taken stay what they are, and with them the shares of the output.
    """
    changed = logits.clone()
    for tie in forced:
        row = changed[tie.position]
        least = row[list(tie.taken)].min()
        left = list(tie.left)
        row[left] = row[left].minimum(torch.nextafter(least, least.new_tensor(-torch.inf)))
    return changed


def _names(experts: Sequence[int]) -> str:
    return f"expert{'s' if len(experts) > 1 else ''} {', '.join(map(str, experts))}"
