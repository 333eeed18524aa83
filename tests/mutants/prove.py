"""Prove that a mutant computes something else than the healthy package: `python -m mutants.prove`
looks for a call that shows it.

Both run in the same kernels on one thread, so that a healthy copy gives the same numbers. The
judge of packages has no part in this.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from gptoss_onnx.errors import GptOssError
from gptoss_onnx.runtime import Session, open_package
from mutants.bases import Bases
from mutants.calls import CALLS, Result, outcome
from mutants.copied import Copied
from mutants.mutant import REFUSED, Equivalent, Mutant
from mutants.table import MUTANTS
from support.tolerances import MUTANT_DIFFERS

KERNELS = {"portable": ("native", "portable"), "ort": ("auto",)}


class Prover:
    """Compares mutants with the healthy packages they are made from.

    Args:
        bases: the healthy packages.
        folder: where copies are made.
    """

    def __init__(self, bases: Bases, folder: Path) -> None:
        self._bases, self._copy = bases, folder / "mutant"
        self._known: dict[tuple[str, str, str], Result] = {}

    def difference(self, mutant: Mutant | Equivalent, proof: str) -> float:
        """Return the largest difference that a call shows, as `Mutant.proof` names it; infinite
        where only one of the two is refused, or both in other words.
        """
        package = self._make(mutant)
        if proof == REFUSED:
            return _refusal(package)
        kernels, call = proof.split(": ")
        return self._difference(mutant, package, kernels, call)

    def search(self, mutant: Mutant) -> tuple[str, float]:
        """Return the first proof that shows a difference, and how large it is; else the largest."""
        package = self._make(mutant)
        if _refusal(package):
            return REFUSED, _refusal(package)
        best = ("", 0.0)
        for call in CALLS:
            for kernels in KERNELS[mutant.target]:
                found = self._difference(mutant, package, kernels, call)
                if found > MUTANT_DIFFERS:
                    return f"{kernels}: {call}", found
                best = max(best, (f"{kernels}: {call}", found), key=lambda it: it[1])
        return best

    def _make(self, mutant: Mutant | Equivalent) -> Path:
        copied = Copied.of(self._bases.package(mutant.target), self._copy)
        mutant.change(copied)
        copied.write()
        return self._copy

    def _difference(
        self, mutant: Mutant | Equivalent, package: Path, kernels: str, call: str
    ) -> float:
        key = (mutant.target, kernels, call)
        if key not in self._known:
            self._known[key] = _outcome(self._bases.package(mutant.target), kernels, call)
        return distance(_outcome(package, kernels, call), self._known[key])


def distance(found: Result, expected: Result) -> float:
    """Return the largest difference of two results."""
    if len(found) != len(expected):
        return np.inf
    largest = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        if isinstance(ours, str) or isinstance(theirs, str):
            same = isinstance(ours, str) and isinstance(theirs, str) and ours == theirs
            largest = max(largest, 0.0 if same else np.inf)
        elif ours.shape != theirs.shape or not np.isfinite(ours).all():
            return np.inf
        else:
            largest = max(largest, float(np.abs(ours - theirs).max()))
    return largest


def _outcome(package: Path, kernels: str, call: str) -> Result:
    try:
        with Session.open(package, kernels=kernels, threads=1) as session:
            found = outcome(session, call)
    except GptOssError as error:  # these kernels refuse the package
        found = [str(error)]
    return [it.replace(str(package), "") if isinstance(it, str) else it for it in found]


def _refusal(package: Path) -> float:
    """Return infinity for a package that no kernels open, else 0."""
    try:
        open_package(package)
        Session.open(package, threads=1).close()
    except GptOssError as error:
        return np.inf if "\n" not in str(error) else 0.0
    return 0.0


def main(*names: str) -> None:
    """Print a proof for each mutant of these names, or for all."""
    with tempfile.TemporaryDirectory() as folder, Bases.small(Path(folder)) as bases:
        prover = Prover(bases, Path(folder))
        for mutant in MUTANTS:
            if not names or mutant.name in names:
                proof, found = prover.search(mutant)
                verdict = "" if found > MUTANT_DIFFERS else "NOT PROVED "
                print(f"{mutant.kind}: {mutant.name}: {verdict}{proof}: {found:.2g}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
