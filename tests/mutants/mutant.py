"""Mutant: one wrong package, as a line of a table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from mutants.copied import Copied

Kind = Literal[
    "attributes",
    "constants",
    "graph",
    "bodies",
    "weights",
    "caches",
    "conditions",
    "manifests",
    "ort",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
Change = Callable[[Copied], None]
REFUSED = "refused when opened"


@dataclass(frozen=True)
class Mutant:
    """One wrong package.

    Attributes:
        name: what is wrong, in a few words; unique.
        kind: what was changed; `ort` is anything in a package of that target.
        change: makes it, from a copy of a healthy package.
        place: where a report must say that it is wrong: words that must all be in one place it
            names. `a|b` is one of several words.
        proof: a call that shows the difference, as `KERNELS: NAME OF A CALL` (see `calls`), or
            `REFUSED` where the package does not open.
    """

    name: str
    kind: Kind
    change: Change
    place: str
    proof: str

    @property
    def target(self) -> Literal["portable", "ort"]:
        """The target of the package that it is made from."""
        return "ort" if self.kind == "ort" else "portable"

    def is_named_by(self, text: str) -> bool:
        """Say whether a text names the place."""
        return all(any(word in text for word in words.split("|")) for words in self.place.split())


def table(kind: Kind, *lines: tuple[str, Change, str, str]) -> tuple[Mutant, ...]:
    """Return mutants of one kind from their names, changes, places and proofs."""
    return tuple(Mutant(name, kind, *rest) for name, *rest in lines)


@dataclass(frozen=True)
class Equivalent:
    """A change that no output shows, and why: it is no mutant."""

    name: str
    change: Change
    reason: str

    @property
    def target(self) -> Literal["portable", "ort"]:
        """The target of the package that it is made from."""
        return "ort" if "target ort" in self.name else "portable"
