"""All mutants, and the changes that are none."""

from mutants.mutant import Mutant
from mutants.table.attributes import ATTRIBUTES
from mutants.table.bodies import BODIES
from mutants.table.caches import CACHES
from mutants.table.conditions import CONDITIONS
from mutants.table.constants import CONSTANTS
from mutants.table.graph import GRAPH
from mutants.table.manifests import MANIFESTS
from mutants.table.ort import ORT
from mutants.table.weights import WEIGHTS

MUTANTS: tuple[Mutant, ...] = (
    *ATTRIBUTES,
    *CONSTANTS,
    *GRAPH,
    *BODIES,
    *WEIGHTS,
    *CACHES,
    *CONDITIONS,
    *MANIFESTS,
    *ORT,
)
