"""LayerName: the layer that a name is of, as `export` names modules, nodes, weights and caches."""

import re
from dataclasses import dataclass
from typing import Self

# Nine digits at most: a stranger's graph may hold a number that no integer is made of.
_LAYER = re.compile(r"(?:^|\.)(?:layers|past_key_values|present)\.([0-9]{1,9})(?:\.|$)")


@dataclass(frozen=True)
class LayerName:
    """A name of one layer: `model.layers.3.mlp.Add` has scope `model.layers.`, layer 3 and place
    `mlp.Add`. The place of the layer itself is empty.
    """

    scope: str
    layer: int
    place: str

    @classmethod
    def of(cls, name: str) -> Self | None:
        """Return the parts of a name, None where it is of no layer."""
        found = _LAYER.search(name)
        if found is None:
            return None
        return cls(name[: found.start(1)], int(found[1]), name[found.end() :])

    def moved(self, layer: int) -> str:
        """Return the same name in another layer."""
        name = f"{self.scope}{layer}"
        return f"{name}.{self.place}" if self.place else name


def layer_of(name: str | None) -> int | None:
    """Return the number of the layer that a name is of, None where it is of no layer."""
    found = LayerName.of(name or "")
    return None if found is None else found.layer
