"""Mutants differ from the healthy package, and `validate` at its defaults finds them, at the right
place.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mutants.bases import Bases
from mutants.calls import CALLS
from mutants.mutant import KINDS, Mutant
from mutants.prove import KERNELS, Prover
from mutants.table import MUTANTS
from mutants.table.equivalent import EQUIVALENT
from support.tolerances import MUTANT_DIFFERS

# one of a kind
FEW = (
    "alpha rounded to bfloat16",
    "the slowest frequency is not stretched",
    "keys and values exchanged",
    "a ring that is none",
    "the last bit of a number in the embedding of one token",
    "values grow a thousandth with each call",
    "calls of 24 tokens",
    "half the context",
    "one number of a widened matrix",
)
# those of them that are judged by all cases too, which takes ten seconds each
FEWER = ("calls of 24 tokens", "one number of a widened matrix")


@pytest.fixture(scope="module")
def prover(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prover]:
    folder = tmp_path_factory.mktemp("mutants")
    with Bases.small(folder) as bases:
        yield Prover(bases, folder)


def chosen(names: Sequence[str]) -> list[Mutant]:
    return [mutant for mutant in MUTANTS if mutant.name in names]


def test_the_table_has_enough_of_each_kind() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 60
    counted = Counter(mutant.kind for mutant in MUTANTS)
    assert counted.keys() == set(KINDS)
    assert counted["bodies"] >= 10 and counted["ort"] >= 8
    assert [mutant.kind for mutant in chosen(FEW)] == list(KINDS)


@pytest.mark.parametrize("mutant", chosen(FEW), ids=lambda mutant: mutant.name)
def test_some_differ(mutant: Mutant, prover: Prover) -> None:
    assert prover.difference(mutant, mutant.proof) > MUTANT_DIFFERS


def test_some_are_found_without_running_them() -> None:
    run("--compare", *(word for name in FEW for word in ("--name", name)))


@pytest.mark.slow
def test_some_are_killed_at_the_right_place() -> None:
    run(*(word for name in FEWER for word in ("--name", name)))


@pytest.mark.slow
@pytest.mark.mutations
@pytest.mark.timeout(3600)
def test_all_are_found_without_running_them() -> None:
    run("--compare")


@pytest.mark.slow
@pytest.mark.mutations
@pytest.mark.timeout(3600)
def test_all_differ(prover: Prover) -> None:
    found = {mutant.name: prover.difference(mutant, mutant.proof) for mutant in MUTANTS}
    assert [name for name, difference in found.items() if difference <= MUTANT_DIFFERS] == []


@pytest.mark.slow
@pytest.mark.mutations
@pytest.mark.timeout(3600)
def test_no_call_shows_what_is_equivalent(prover: Prover) -> None:
    seen = [
        f"{change.name}: {kernels}: {call}"
        for change in EQUIVALENT
        for kernels in KERNELS[change.target]
        for call in CALLS
        if prover.difference(change, f"{kernels}: {call}") > MUTANT_DIFFERS
    ]
    assert seen == []


@pytest.mark.slow
@pytest.mark.mutations
@pytest.mark.timeout(5400)
def test_all_are_killed_at_the_right_place() -> None:
    run()


def run(*words: str) -> None:
    """Run the program, which ends with 0 if all is well."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "mutants.run", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
