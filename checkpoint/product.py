"""Product: a low-rank product of an adapter that stays beside the weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Product:
    """A product that the model computes beside a projection, instead of a sum of weights."""

    rank: int
    scale: float
